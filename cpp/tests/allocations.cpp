// BUNDLE GRAPH: prints how often one picture's run asks for memory, in this library and in OpenVINO alone.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <vector>

#include <openvino/openvino.hpp>

#include "samdeploy.h"

// The C library's own functions, under the names that these here hide.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {
thread_local int asked = 0;  // operator new asks malloc, and is counted with it
}

extern "C" {
void* malloc(std::size_t size) { return ++asked, __libc_malloc(size); }
void* calloc(std::size_t count, std::size_t size) { return ++asked, __libc_calloc(count, size); }
void* realloc(void* old, std::size_t size) { return ++asked, __libc_realloc(old, size); }
void* memalign(std::size_t alignment, std::size_t size) { return ++asked, __libc_memalign(alignment, size); }
void* aligned_alloc(std::size_t alignment, std::size_t size) { return ++asked, __libc_memalign(alignment, size); }
int posix_memalign(void** made, std::size_t alignment, std::size_t size) {
  ++asked;
  *made = __libc_memalign(alignment, size);
  return *made == nullptr ? 12 : 0;
}
}

namespace {

char* volatile kept = nullptr;  // else the compiler leaves out what nobody looks at

constexpr int kWarmUp = 20, kRuns = 50;

// Fewest and most requests of this thread in one call, after warm-up.
template <typename Call>
void count(const char* name, const Call& call) {
  for (int i = 0; i < kWarmUp; ++i) call();
  int fewest = 1 << 30, most = 0;
  for (int i = 0; i < kRuns; ++i) {
    const int before = asked;
    call();
    fewest = std::min(fewest, asked - before);
    most = std::max(most, asked - before);
  }
  std::printf("%s %d %d\n", name, fewest, most);
}

}  // namespace

int main(int arguments, char** argument) {
  if (arguments != 3) return 2;
  samdeploy_options options = SAMDEPLOY_OPTIONS_INIT;
  options.threads = 1;
  samdeploy_classifier* classifier = nullptr;
  if (samdeploy_open(argument[1], &options, &classifier) != SAMDEPLOY_OK) {
    std::fprintf(stderr, "%s\n", samdeploy_last_error());
    return 1;
  }
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  samdeploy_describe(classifier, &about);
  std::vector<std::uint8_t> pixels(std::size_t{about.height} * about.width * 3, 99);
  std::vector<float> logits(about.classes);
  samdeploy_score best[2];
  count("samdeploy", [&] { samdeploy_run(classifier, pixels.data(), 1, logits.data()); });
  count("rank", [&] { samdeploy_rank(classifier, logits.data(), best, 2); });
  samdeploy_close(classifier);

  ov::Core core;
  ov::CompiledModel compiled = core.compile_model(
      argument[2], "CPU", ov::hint::inference_precision(ov::element::f32),
      ov::hint::execution_mode(ov::hint::ExecutionMode::ACCURACY),
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY), ov::inference_num_threads(1));
  ov::InferRequest request = compiled.create_infer_request();
  request.set_input_tensor(ov::Tensor(ov::element::u8, {1, about.height, about.width, 3}, pixels.data()));
  count("openvino", [&] { request.infer(); });
  // The counter itself: a test that cannot count proves nothing.
  count("three", [&] {
    for (std::size_t i = 0; i < 3; ++i) {
      kept = new char[1000 + i];
      delete[] kept;
    }
  });
  return 0;
}

// BUNDLE GRAPH JPEG: prints how often decoding with resizing, and a run, ask for memory: in this library, in libjpeg
// alone, and in OpenVINO alone.
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include <jpeglib.h>

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

// Decodes into memory that is there, as the library does after its first image.
void decode(const std::vector<char>& jpeg, std::vector<unsigned char>* row) {
  jpeg_error_mgr errors;
  jpeg_decompress_struct info;
  info.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(jpeg.data()), jpeg.size());
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&info, TRUE);
  jpeg_start_decompress(&info);
  row->resize(std::size_t{info.output_width} * 3);
  while (info.output_scanline < info.output_height) {
    JSAMPROW start = row->data();
    jpeg_read_scanlines(&info, &start, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
}

}  // namespace

int main(int arguments, char** argument) {
  if (arguments != 4) return 2;
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
  std::ifstream file(argument[3], std::ios::binary);
  const std::vector<char> jpeg{std::istreambuf_iterator<char>(file), {}};
  std::vector<unsigned char> row;
  count("libjpeg", [&] { decode(jpeg, &row); });
  std::vector<std::uint8_t> other(pixels.size());
  int failed = 0;
  count("prepare_memory", [&] {
    failed += samdeploy_prepare_memory(classifier, jpeg.data(), jpeg.size(), pixels.data()) != SAMDEPLOY_OK;
  });
  count("prepare_file", [&] { failed += samdeploy_prepare_file(classifier, argument[3], pixels.data()) != SAMDEPLOY_OK; });
  count("prepare_rgb", [&] {
    failed += samdeploy_prepare_rgb(classifier, pixels.data(), about.height / 2, about.width, 0, other.data()) != SAMDEPLOY_OK;
  });
  if (failed != 0) return 1;
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

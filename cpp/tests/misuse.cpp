// What applications do wrong: closing too early, forking too late, handles and pointers that are none.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "opening.hpp"
#include "samdeploy.hpp"

namespace {

// BUNDLE IMAGE THREADS: threads classify while one of them closes the classifier; prints what each was told last.
int close_early(char** argument) {
  samdeploy_classifier* classifier = open_or_exit(argument[0], options("fp32", 0, 2));
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  samdeploy_describe(classifier, &about);
  const std::size_t size = std::size_t{about.height} * about.width * 3, classes = about.classes;
  const int count = std::atoi(argument[2]);
  std::vector<samdeploy_status> last(static_cast<std::size_t>(count), SAMDEPLOY_OK);
  std::atomic<int> answers{0};
  const auto work = [&](std::size_t index) {
    std::vector<std::uint8_t> pixels(size);
    std::vector<float> logits(classes);
    while (last[index] == SAMDEPLOY_OK) {
      last[index] = samdeploy_prepare_file(classifier, argument[1], pixels.data());
      if (last[index] == SAMDEPLOY_OK) last[index] = samdeploy_run(classifier, pixels.data(), 1, logits.data());
      ++answers;
    }
  };
  std::vector<std::thread> pool;
  for (int i = 0; i < count; ++i) pool.emplace_back(work, static_cast<std::size_t>(i));
  while (answers < 5 * count) std::this_thread::yield();
  samdeploy_close(classifier);
  for (std::thread& each : pool) each.join();
  for (const samdeploy_status status : last) std::printf("%d\n", status);
  samdeploy_close(classifier);  // again: nothing
  return 0;
}

// BUNDLE: prints what a child of this process is told, when it uses its parent's classifier and when it opens one.
int fork_after_open(const char* bundle) {
  samdeploy_classifier* classifier = open_or_exit(bundle, options("fp32", 0, 0));
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // what must not happen is that it waits for ever
    std::vector<float> logits(1 << 16);
    const std::vector<std::uint8_t> pixels(1 << 22);
    std::printf("%d\n", samdeploy_run(classifier, pixels.data(), 1, logits.data()));
    samdeploy_close(classifier);
    std::printf("%d\n", samdeploy_open(bundle, nullptr, &classifier));
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::printf("%d\n", status);
  samdeploy_close(classifier);
  return 0;
}

// BUNDLE: opens it in a child of a process that has opened none.
int fork_before_open(const char* bundle) {
  const pid_t child = fork();
  if (child == 0) {
    samdeploy_classifier* classifier = open_or_exit(bundle, options("fp32", 0, 0));
    samdeploy_close(classifier);
    std::exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::printf("%d\n", status);
  return 0;
}

// BUNDLE IMAGE: prints what every function says to NULL, to a closed classifier, and to one that never was.
int misuse(const char* bundle, const char* image) {
  samdeploy_classifier* classifier = open_or_exit(bundle, options("fp32", 0, 0));
  samdeploy_close(classifier);
  samdeploy_classifier* const none = nullptr;
  samdeploy_classifier* const wild = reinterpret_cast<samdeploy_classifier*>(~std::uintptr_t{0});
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  std::uint8_t pixel[3] = {};
  float logit[1] = {};
  samdeploy_score best[1];
  for (samdeploy_classifier* each : {none, classifier, wild}) {
    std::printf("%d %d %d %d %d %d %d %d\n", samdeploy_describe(each, &about), samdeploy_class_name(each, 0) != nullptr,
                samdeploy_prepare_file(each, image, pixel), samdeploy_prepare_memory(each, pixel, 3, pixel),
                samdeploy_prepare_rgb(each, pixel, 1, 1, 0, pixel), samdeploy_run(each, pixel, 1, logit),
                samdeploy_run_device(each, pixel, 1, logit, nullptr), samdeploy_rank(each, logit, best, 1));
    samdeploy_close(each);
  }
  samdeploy_options made = options("fp32", 0, 0);
  made.max_pixels = 4;
  classifier = open_or_exit(bundle, made);
  samdeploy_describe(classifier, &about);
  std::vector<std::uint8_t> pixels(std::size_t{about.height} * about.width * 3);
  std::printf("%d %d %d %d %d %d %d %d\n", samdeploy_describe(classifier, nullptr),
              samdeploy_prepare_file(classifier, nullptr, pixels.data()),
              samdeploy_prepare_file(classifier, image, nullptr), samdeploy_prepare_file(classifier, image, pixels.data()),
              samdeploy_prepare_memory(classifier, pixel, 0, pixels.data()), samdeploy_run(classifier, pixel, 0, logit),
              samdeploy_run(classifier, pixel, SIZE_MAX, logit),
              samdeploy_run_device(classifier, pixel, 1, logit, nullptr));
  samdeploy_close(classifier);
  return 0;
}

// BUNDLE ENGINE: prints status and text of a batch that no memory holds, then the status of one image.
int huge_batch(const char* bundle, const char* engine) {
  samdeploy_classifier* classifier = open_or_exit(bundle, options(engine, 0, 0));
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  samdeploy_describe(classifier, &about);
  const std::size_t size = std::size_t{about.height} * about.width * 3;
  const std::vector<std::uint8_t> pixels(size);
  std::vector<float> logits(about.classes);
  // The library reserves its own memory before it reads a byte of the caller's.
  const samdeploy_status status = samdeploy_run(classifier, pixels.data(), SIZE_MAX / 4 / size, logits.data());
  std::printf("%d %s\n", status, samdeploy_last_error());
  std::printf("%d\n", samdeploy_run(classifier, pixels.data(), 1, logits.data()));
  samdeploy_close(classifier);
  return 0;
}

// BUNDLE: prints status and text of paths that are none.
int no_paths(const char* bundle) {
  samdeploy_classifier* classifier = nullptr;
  const samdeploy_status opened = samdeploy_open("", nullptr, &classifier);
  std::printf("%d %s\n", opened, samdeploy_last_error());
  classifier = open_or_exit(bundle, options("fp32", 0, 0));
  std::uint8_t pixel[3] = {};
  const samdeploy_status prepared = samdeploy_prepare_file(classifier, "", pixel);
  std::printf("%d %s\n", prepared, samdeploy_last_error());
  samdeploy_close(classifier);
  return 0;
}

template <typename Call>
void print_error(const Call& call) {
  try {
    call();
    std::printf("0\n");
  } catch (const samdeploy::Error& error) {
    std::printf("%d %s\n", error.status(), error.what());
  }
}

// BUNDLE IMAGE: prints status and text of paths with a zero byte behind a sound one, then of an image of too many bytes.
int limits(const std::string& bundle, const std::string& image) {
  const std::string tail("\0.txt", 5);
  print_error([&] { samdeploy::Classifier::open(bundle + tail); });
  samdeploy::Options made;
  made.max_bytes = 4;
  const samdeploy::Classifier classifier = samdeploy::Classifier::open(bundle, made);
  print_error([&] { classifier.predict(image + tail); });
  print_error([&] { classifier.predict(image); });
  print_error([&] { classifier.prepare("image", 5); });
  return 0;
}

}  // namespace

int main(int count, char** argument) {
  const std::string command = count > 1 ? argument[1] : "";
  if (command == "close-early" && count == 5) return close_early(argument + 2);
  if (command == "fork" && count == 3) return fork_after_open(argument[2]);
  if (command == "fork-first" && count == 3) return fork_before_open(argument[2]);
  if (command == "misuse" && count == 4) return misuse(argument[2], argument[3]);
  if (command == "huge-batch" && count == 4) return huge_batch(argument[2], argument[3]);
  if (command == "no-paths" && count == 3) return no_paths(argument[2]);
  if (command == "limits" && count == 4) return limits(argument[2], argument[3]);
  std::fprintf(stderr, "usage: samdeploy-misuse close-early|fork|fork-first|misuse|huge-batch|no-paths|limits ...\n");
  return 2;
}

// What the tests in Python cannot reach by themselves; each command is described in tests/cpp/conftest.py.

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backend.hpp"
#include "error.hpp"
#include "opening.hpp"
#include "image.hpp"
#include "samdeploy.h"

namespace core = samdeploy::core;

namespace {

std::vector<std::uint8_t> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_int(std::ostream& out, std::int32_t value) { out.write(reinterpret_cast<const char*>(&value), 4); }

void write_bytes(std::ostream& out, const std::uint8_t* bytes, std::size_t count) {
  out.write(reinterpret_cast<const char*>(bytes), static_cast<std::streamsize>(count));
}

void write_text(std::ostream& out, const std::string& text) {
  write_int(out, static_cast<std::int32_t>(text.size()));
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
}

// An upright image at its own size.
struct Whole final : core::Rows {
  core::Preprocessing size;
  std::vector<std::uint8_t> pixels;

  void begin(std::int64_t height, std::int64_t width, int orientation) override {
    size.height = orientation >= 5 ? width : height, size.width = orientation >= 5 ? height : width;
    pixels.resize(static_cast<std::size_t>(height * width * 3));
    resize_ = std::make_unique<core::Resize>(size, pixels.data(), space_);
    resize_->begin(height, width, orientation);
  }
  void add(const std::uint8_t* row) noexcept override { resize_->add(row); }

 private:
  core::Workspace space_;
  std::unique_ptr<core::Resize> resize_;
};

// "bicubic half-even" and the like.
std::istream& operator>>(std::istream& in, core::Preprocessing& size) {
  std::string filter, crop;
  in >> size.height >> size.width >> size.resize_short >> filter >> crop;
  size.filter = filter == "bicubic" ? core::Filter::bicubic : core::Filter::bilinear;
  size.is_half_even = crop == "half-even";
  return in;
}

// OUT MOST_PIXELS: for every line "HEIGHT WIDTH SHORT FILTER CROP PATH" on stdin, status, then the image and its resize,
// or a text.  Where PATH is "=", it is the image of the line before, and only its resize is written.
int images(const std::string& out_path, std::uint64_t most_pixels) {
  std::ofstream out(out_path, std::ios::binary);
  core::Preprocessing size;
  core::Workspace space;  // one for all: what an image leaves behind must not be seen in the next one
  std::vector<std::uint8_t> encoded;
  core::ImageLimits limits;
  limits.pixels = most_pixels;
  std::string path;
  while (std::cin >> size && std::getline(std::cin >> std::ws, path)) {
    try {
      Whole whole;
      if (path != "=") {
        encoded = read_file(path);
        core::decode(encoded.data(), encoded.size(), limits, space, whole);
      }
      std::vector<std::uint8_t> resized(static_cast<std::size_t>(size.height * size.width * 3));
      core::Resize resize(size, resized.data(), space);
      core::decode(encoded.data(), encoded.size(), limits, space, resize);
      write_int(out, SAMDEPLOY_OK);
      write_int(out, static_cast<std::int32_t>(whole.size.height));
      write_int(out, static_cast<std::int32_t>(whole.size.width));
      write_bytes(out, whole.pixels.data(), whole.pixels.size());
      write_bytes(out, resized.data(), resized.size());
    } catch (const core::Error& error) {
      write_int(out, error.status());
      write_text(out, error.what());
    }
  }
  return 0;
}

// Whether OpenVINO's CPU plugin or its reader of ONNX files, which it loads with the first graph, are in this process.
bool runtime_was_used() {
  std::ifstream maps("/proc/self/maps");
  const std::string all{std::istreambuf_iterator<char>(maps), {}};
  return all.find("openvino_intel_cpu_plugin") != std::string::npos || all.find("openvino_onnx") != std::string::npos;
}

// BUNDLE PRECISION: prints status, whether a runtime was used, and the text.
int open_bundle(const char* bundle, const char* precision) {
  const samdeploy_options made = options(precision, 0, 0);
  samdeploy_classifier* classifier = nullptr;
  const samdeploy_status status = samdeploy_open(bundle, &made, &classifier);
  std::printf("%d\n%d\n%s\n", status, runtime_was_used() ? 1 : 0, status == SAMDEPLOY_OK ? "" : samdeploy_last_error());
  if ((classifier == nullptr) == (status == SAMDEPLOY_OK)) return 1;
  samdeploy_close(classifier);
  return 0;
}

struct Batch {
  std::size_t pixel_bytes, classes, count;
  std::vector<std::uint8_t> pixels;
};

Batch read_batch(const samdeploy_classifier* classifier, const char* path) {
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  if (samdeploy_describe(classifier, &about) != SAMDEPLOY_OK) std::exit(1);
  Batch batch;
  batch.pixels = read_file(path);
  batch.pixel_bytes = std::size_t{about.height} * about.width * 3;
  batch.classes = about.classes;
  batch.count = batch.pixels.size() / batch.pixel_bytes;
  return batch;
}

// BUNDLE PRECISION THREADS PIXELS BATCH OUT: logits of the images in PIXELS, BATCH at a time.
int run(char** argument) {
  samdeploy_classifier* classifier = open_or_exit(argument[0], options(argument[1], std::atoi(argument[2]), 0));
  const Batch batch = read_batch(classifier, argument[3]);
  const std::size_t step = static_cast<std::size_t>(std::atoi(argument[4]));
  std::vector<float> logits(batch.count * batch.classes);
  for (std::size_t at = 0; at < batch.count; at += step) {
    const std::size_t count = std::min(step, batch.count - at);
    if (samdeploy_run(classifier, &batch.pixels[at * batch.pixel_bytes], count, &logits[at * batch.classes])) return 1;
  }
  std::ofstream(argument[5], std::ios::binary)
      .write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size() * 4));
  samdeploy_close(classifier);
  return 0;
}

// BUNDLE PIXELS THREADS REQUESTS ROUNDS: prints how many answers of many threads differ from those of one.
int threads(char** argument) {
  const int workers = std::atoi(argument[2]), rounds = std::atoi(argument[4]);
  samdeploy_classifier* classifier = open_or_exit(argument[0], options("fp32", 0, std::atoi(argument[3])));
  const Batch batch = read_batch(classifier, argument[1]);
  std::vector<float> expected(batch.count * batch.classes);
  for (std::size_t i = 0; i < batch.count; ++i) {
    if (samdeploy_run(classifier, &batch.pixels[i * batch.pixel_bytes], 1, &expected[i * batch.classes])) return 1;
  }
  std::atomic<int> different{0}, answers{0};
  const auto work = [&](std::size_t first) {
    std::vector<float> found(batch.classes);
    for (int round = 0; round < rounds; ++round) {
      const std::size_t i = (first + static_cast<std::size_t>(round)) % batch.count;
      const bool failed = samdeploy_run(classifier, &batch.pixels[i * batch.pixel_bytes], 1, found.data()) != 0;
      different += failed || std::memcmp(found.data(), &expected[i * batch.classes], batch.classes * 4) != 0;
      ++answers;
      if (samdeploy_run(classifier, nullptr, 1, found.data()) != SAMDEPLOY_ARGUMENT) ++different;
    }
  };
  std::vector<std::thread> pool;
  for (int i = 0; i < workers; ++i) pool.emplace_back(work, static_cast<std::size_t>(i) * 7);
  for (std::thread& each : pool) each.join();
  std::printf("%d %d\n", answers.load(), different.load());
  samdeploy_close(classifier);
  return 0;
}

// BUNDLE IMAGE OUT: writes the image as prepared from its file, from memory, and from rows with a gap between them.
int prepare(char** argument) {
  samdeploy_classifier* classifier = open_or_exit(argument[0], options("fp32", 0, 0));
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  samdeploy_describe(classifier, &about);
  const std::size_t size = std::size_t{about.height} * about.width * 3;
  std::vector<std::uint8_t> pixels(3 * size);
  const std::vector<std::uint8_t> encoded = read_file(argument[1]);
  core::Workspace space;
  Whole whole;
  core::decode(encoded.data(), encoded.size(), {}, space, whole);
  const auto height = static_cast<std::uint32_t>(whole.size.height), width = static_cast<std::uint32_t>(whole.size.width);
  const std::size_t row = std::size_t{width} * 3, stride = row + 13;
  std::vector<std::uint8_t> apart(height * stride - 13, 77);
  for (std::size_t y = 0; y < height; ++y) std::memcpy(&apart[y * stride], whole.pixels.data() + y * row, row);
  const bool failed =
      samdeploy_prepare_file(classifier, argument[1], pixels.data()) != SAMDEPLOY_OK ||
      samdeploy_prepare_memory(classifier, encoded.data(), encoded.size(), pixels.data() + size) != SAMDEPLOY_OK ||
      samdeploy_prepare_rgb(classifier, apart.data(), height, width, stride, pixels.data() + 2 * size) != SAMDEPLOY_OK;
  const samdeploy_status short_stride =
      samdeploy_prepare_rgb(classifier, apart.data(), height, width, row - 1, pixels.data());
  std::ofstream(argument[2], std::ios::binary)
      .write(reinterpret_cast<const char*>(pixels.data()), static_cast<std::streamsize>(pixels.size()));
  samdeploy_close(classifier);
  return failed || short_stride != SAMDEPLOY_ARGUMENT ? 1 : 0;
}

// BUNDLE: prints the order of ten logits with equal ones among them, and how logits that are not finite are answered.
int rank(const char* bundle) {
  samdeploy_classifier* classifier = open_or_exit(bundle, options("fp32", 0, 0));
  float logits[10] = {1.0f, 3.0f, -2.0f, 3.0f, 0.5f, 1.0f, 3.0f, -90.0f, 1.0f, 2.0f};
  samdeploy_score best[10];
  if (samdeploy_rank(classifier, logits, best, 10) != SAMDEPLOY_OK) return 1;
  for (const samdeploy_score& each : best) std::printf("%zu %.17g\n", each.index, each.probability);
  std::printf("%d %d\n", samdeploy_rank(classifier, logits, best, 11), samdeploy_rank(classifier, logits, best, 0));
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    for (const std::size_t place : {0, 4, 9}) {
      const float before = logits[place];
      logits[place] = value;
      const samdeploy_status status = samdeploy_rank(classifier, logits, best, 1);
      std::printf("%d %s\n", status, samdeploy_last_error());
      logits[place] = before;
    }
  }
  samdeploy_close(classifier);
  return 0;
}

void print(samdeploy_status status) { std::printf("%d %s\n", status, samdeploy_last_error()); }

// Prints how options and arguments that are wrong are answered, one status per line.
int arguments(const char* bundle) {
  samdeploy_classifier* classifier = nullptr;
  print(samdeploy_open(nullptr, nullptr, &classifier));
  print(samdeploy_open(bundle, nullptr, nullptr));
  struct Newer {
    samdeploy_options known;
    std::uint64_t future;
  } newer = {options("fp32", 0, 0), 7};
  newer.known.struct_size = sizeof newer;
  print(samdeploy_open(bundle, &newer.known, &classifier));
  samdeploy_options made = options("fp32", -1, 0);
  print(samdeploy_open(bundle, &made, &classifier));
  made = options("fp12", 0, 0);
  print(samdeploy_open(bundle, &made, &classifier));
  made = options("fp32", 0, 0);
  made.backend = "abacus";
  print(samdeploy_open(bundle, &made, &classifier));
  newer.future = 0;
  made = options("fp32", 0, 0);
  made.struct_size = offsetof(samdeploy_options, threads);  // a caller from before `threads`
  const samdeploy_status old = samdeploy_open(bundle, &made, &classifier);
  samdeploy_close(classifier);
  std::printf("%d %d\n", old, samdeploy_open(bundle, &newer.known, &classifier));
  std::printf("%d\n", samdeploy_class_name(classifier, 1000000) == nullptr);
  samdeploy_description about;
  std::memset(&about, 1, sizeof about);
  about.struct_size = offsetof(samdeploy_description, temperature);  // a caller from before `temperature`
  const samdeploy_status described = samdeploy_describe(classifier, &about);
  const std::uint64_t untouched = 0x0101010101010101;
  std::printf("%d %zu %d\n", described, about.classes, std::memcmp(&about.temperature, &untouched, sizeof untouched));
  samdeploy_close(classifier);
  samdeploy_close(nullptr);
  return 0;
}

// TEXT: prints the status, and the text, that a runtime's error becomes.
int refuse(const char* said) {
  try {
    core::refuse("OpenVINO failed", said, said);
  } catch (const core::Error& error) {
    std::printf("%d %s\n", error.status(), error.what());
  }
  return 0;
}

}  // namespace

int main(int count, char** argument) {
  const std::string command = count > 1 ? argument[1] : "";
  if (command == "images" && count == 4) return images(argument[2], std::strtoull(argument[3], nullptr, 10));
  if (command == "open" && count == 4) return open_bundle(argument[2], argument[3]);
  if (command == "run" && count == 8) return run(argument + 2);
  if (command == "threads" && count == 7) return threads(argument + 2);
  if (command == "prepare" && count == 5) return prepare(argument + 2);
  if (command == "rank" && count == 3) return rank(argument[2]);
  if (command == "arguments" && count == 3) return arguments(argument[2]);
  if (command == "refuse" && count == 3) return refuse(argument[2]);
  std::fprintf(stderr, "usage: samdeploy-probe images|open|run|threads|prepare|rank|arguments|refuse ...\n");
  return 2;
}

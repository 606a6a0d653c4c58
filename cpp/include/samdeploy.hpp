// samdeploy for C++17: a thin, header-only wrapper of samdeploy.h, so that no C++ type crosses the library's border.
//
//   try {
//     auto classifier = samdeploy::Classifier::open("bundle");
//     std::cout << classifier.predict("photo.jpg").label << "\n";
//   } catch (const samdeploy::Error& error) {
//     std::cerr << error.what() << "\n";
//   }
#ifndef SAMDEPLOY_HPP
#define SAMDEPLOY_HPP

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "samdeploy.h"

namespace samdeploy {

// What a call could not do: what happened, what was found, what was expected, and the cure.
class Error : public std::runtime_error {
 public:
  Error(samdeploy_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  samdeploy_status status() const noexcept { return status_; }

 private:
  samdeploy_status status_;
};

struct Options {
  std::string backend = "openvino";  // or "onnxruntime", "tensorrt"
  std::string precision = "fp32";  // "fp32", "bf16", "fp16" or "int8"
  int threads = 0;                 // that compute; 0: the runtime's choice
  int requests = 0;                // inferences at the same time; 0: one, for the lowest latency
  std::uint64_t max_pixels = 0;    // of an image; 0: 178,956,970
  std::uint64_t max_bytes = 0;     // of an encoded image; 0: 64 MiB
};

struct Score {
  std::size_t index;   // the class's column in the logits
  std::string label;
  double probability;  // softmax with the bundle's temperature, in [0, 1]
};

// The answer for one image.
struct Prediction {
  std::size_t index;
  std::string label;
  double probability;
  std::vector<Score> top;     // best first
  std::vector<float> logits;  // [K], as the engine gave them
  bool rejected = false;      // too often wrong to act on; see Classifier::rejects
};

// An opened and verified bundle.  Many threads may use one; it can be moved, not copied.
class Classifier {
 public:
  // Throws Error: the bundle is damaged, unsafe, cannot run here, or does not answer as its model did.
  static Classifier open(const std::string& bundle, const Options& options = {}) {
    samdeploy_options plain = SAMDEPLOY_OPTIONS_INIT;
    plain.backend = options.backend.c_str();
    plain.precision = options.precision.c_str();
    plain.threads = options.threads;
    plain.requests = options.requests;
    plain.max_pixels = options.max_pixels;
    plain.max_bytes = options.max_bytes;
    samdeploy_classifier* handle = nullptr;
    for (const std::string* name : {&options.backend, &options.precision}) c_text(*name, SAMDEPLOY_ARGUMENT);
    check(samdeploy_open(c_text(bundle, SAMDEPLOY_NO_BUNDLE), &plain, &handle));
    return Classifier(handle);
  }

  std::size_t height() const noexcept { return height_; }  // of the model's input, in pixels
  std::size_t width() const noexcept { return width_; }
  const std::vector<std::string>& classes() const noexcept { return classes_; }
  const std::string& backend() const noexcept { return backend_; }
  const std::string& precision() const noexcept { return precision_; }
  double temperature() const noexcept { return temperature_; }  // logits are divided by it before the softmax

  // Whether an answer of this probability is below the threshold that the bundle was exported with.
  bool rejects(double probability) const noexcept { return probability < threshold_; }

  // uint8 [H, W, 3], RGB: the bytes that every backend is fed.  Throws Error: no image, a damaged or too large one.
  std::vector<std::uint8_t> prepare(const std::string& path) const {
    std::vector<std::uint8_t> pixels(height_ * width_ * 3);
    check(samdeploy_prepare_file(handle_.get(), c_text(path, SAMDEPLOY_IMAGE), pixels.data()));
    return pixels;
  }
  // The same for an encoded JPEG or PNG in memory.
  std::vector<std::uint8_t> prepare(const void* encoded, std::size_t size) const {
    std::vector<std::uint8_t> pixels(height_ * width_ * 3);
    check(samdeploy_prepare_memory(handle_.get(), encoded, size, pixels.data()));
    return pixels;
  }
  // The same for uint8 [height, width, 3], RGB, rows `stride` bytes apart (0: width * 3).
  std::vector<std::uint8_t> prepare_rgb(const std::uint8_t* rgb, std::uint32_t height, std::uint32_t width,
                                        std::size_t stride = 0) const {
    std::vector<std::uint8_t> pixels(height_ * width_ * 3);
    check(samdeploy_prepare_rgb(handle_.get(), rgb, height, width, stride, pixels.data()));
    return pixels;
  }

  // uint8 [count, H, W, 3], RGB -> float32 [count, K], into memory of the caller.
  void run(const std::uint8_t* batch, std::size_t count, float* logits) const {
    check(samdeploy_run(handle_.get(), batch, count, logits));
  }

  // The same between addresses of CUDA device 0, queued on `stream` (a cudaStream_t); see samdeploy_run_device.
  void run_device(const void* batch, std::size_t count, void* logits, void* stream) const {
    check(samdeploy_run_device(handle_.get(), batch, count, logits, stream));
  }

  // The `wanted` most probable classes of one row of logits, best first.  Throws Error, SAMDEPLOY_NOT_FINITE, where the
  // image has driven the network out of the precision's range.
  std::vector<samdeploy_score> rank(const float* logits, std::size_t wanted) const {
    std::vector<samdeploy_score> best(wanted < classes_.size() ? wanted : classes_.size());
    check(samdeploy_rank(handle_.get(), logits, best.data(), best.size()));
    return best;
  }

  // Decode, resize, run.  Throws Error as `prepare` and `rank` do.
  Prediction predict(const std::string& path, std::size_t top = 5) const {
    return predict_prepared(prepare(path), top);
  }

  // The same for one image that `prepare` has made.
  Prediction predict_prepared(const std::vector<std::uint8_t>& pixels, std::size_t top = 5) const {
    if (pixels.size() != height_ * width_ * 3) throw Error(SAMDEPLOY_ARGUMENT, "predict: expected what prepare gives");
    Prediction prediction;
    prediction.logits.resize(classes_.size());
    run(pixels.data(), 1, prediction.logits.data());
    return ranked(std::move(prediction), top);
  }

  // The same for several, as one batch.
  std::vector<Prediction> predict_prepared(const std::vector<std::vector<std::uint8_t>>& images,
                                           std::size_t top = 5) const {
    const std::size_t size = height_ * width_ * 3;
    std::vector<std::uint8_t> batch;
    for (const std::vector<std::uint8_t>& pixels : images) {
      if (pixels.size() != size) throw Error(SAMDEPLOY_ARGUMENT, "predict: expected what prepare gives");
      batch.insert(batch.end(), pixels.begin(), pixels.end());
    }
    std::vector<float> logits(images.size() * classes_.size());
    if (!images.empty()) run(batch.data(), images.size(), logits.data());
    std::vector<Prediction> found(images.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      found[i].logits.assign(logits.data() + i * classes_.size(), logits.data() + (i + 1) * classes_.size());
      found[i] = ranked(std::move(found[i]), top);
    }
    return found;
  }

 private:
  Prediction ranked(Prediction prediction, std::size_t top) const {
    for (const samdeploy_score& each : rank(prediction.logits.data(), top == 0 ? 1 : top)) {
      prediction.top.push_back({each.index, classes_[each.index], each.probability});
    }
    prediction.index = prediction.top.front().index;
    prediction.label = prediction.top.front().label;
    prediction.probability = prediction.top.front().probability;
    prediction.rejected = rejects(prediction.probability);
    return prediction;
  }

  struct Close {
    void operator()(samdeploy_classifier* handle) const noexcept { samdeploy_close(handle); }
  };

  explicit Classifier(samdeploy_classifier* handle) : handle_(handle) {
    samdeploy_description about = {};
    about.struct_size = sizeof about;
    check(samdeploy_describe(handle, &about));
    height_ = about.height;
    width_ = about.width;
    backend_ = about.backend;
    precision_ = about.precision;
    temperature_ = about.temperature;
    threshold_ = about.threshold;
    for (std::size_t i = 0; i < about.classes; ++i) classes_.push_back(samdeploy_class_name(handle, i));
  }

  // C would see the text up to its first NUL, which may name another file.
  static const char* c_text(const std::string& text, samdeploy_status status) {
    const std::size_t at = text.find('\0');
    if (at == std::string::npos) return text.c_str();
    throw Error(status, "'" + text.substr(0, at) + "' is followed by a zero byte, which no path or name holds");
  }

  static void check(samdeploy_status status) {
    if (status != SAMDEPLOY_OK) throw Error(status, samdeploy_last_error());
  }

  std::unique_ptr<samdeploy_classifier, Close> handle_;
  std::size_t height_ = 0, width_ = 0;
  double temperature_ = 1.0, threshold_ = 0.0;
  std::string backend_, precision_;
  std::vector<std::string> classes_;
};

}  // namespace samdeploy

#endif

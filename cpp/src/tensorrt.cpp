// TensorRT 10.12 and later: FP32, FP16, BF16 and INT8 engines, on CUDA device 0.
//
// NOT YET RUN ON A GPU.  It was compiled against CUDA's own headers and run on stand-ins for NvInfer.h and CUDA's runtime
// (tests/cpp/tensorrt_stand_in).
//
// As in samdeploy/backends/tensorrt/session.py: an engine runs only where it was built for, so `built_for` is compared before
// TensorRT sees a byte, because its own answer to a foreign engine is a null pointer or a crash.  A device must be there
// before the first TensorRT object, or the process dies of SIGSEGV.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <sstream>

#include "backend.hpp"

namespace samdeploy::core {
namespace {

constexpr const char* kRebuild = "; build it again here: samdeploy export --engine trt";

[[noreturn]] void unavailable(const std::string& text) { throw Error(SAMDEPLOY_UNAVAILABLE, text); }

void check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) unavailable("CUDA " + what + ": " + cudaGetErrorString(status));
}

// Keeps the last of what TensorRT calls errors, each with a number.
class ErrorLog final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override {
    if (severity > Severity::kERROR) return;
    try {
      const std::lock_guard<std::mutex> lock(mutex_);
      lines_.emplace_back(text);
      ++count_;
      if (lines_.size() > 50) lines_.pop_front();
    } catch (...) {  // no memory for an error's text
    }
  }
  std::size_t count() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return count_;
  }
  std::string since(std::size_t start) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string joined;
    const std::size_t fresh = std::min(count_ - start, lines_.size());
    for (std::size_t i = lines_.size() - fresh; i < lines_.size(); ++i) {
      joined += (joined.empty() ? "" : "; ") + lines_[i];
    }
    return joined.empty() ? "it gives no reason" : joined;
  }

 private:
  std::mutex mutex_;
  std::deque<std::string> lines_;
  std::size_t count_ = 0;
};

// One for the life of the process: TensorRT keeps a bare pointer to the first logger that it is given and uses it for
// all later objects.  So it is never destroyed, not even at exit.
ErrorLog& error_log() {
  static ErrorLog& log = *new ErrorLog;
  return log;
}

// The errors of one call: those logged since this object was made.
class ErrorLines {
 public:
  std::string report() const { return error_log().since(start_); }

 private:
  std::size_t start_ = error_log().count();
};

// "SM86" and the driver's CUDA version, major part.
struct Device {
  std::string name, capability;
  int driver_major = 0;
};

Device describe_device() {
  int count = 0, driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    unavailable(std::string("TensorRT: no CUDA device (") +
                (status != cudaSuccess ? cudaGetErrorString(status) : "the driver shows none") + ")");
  }
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "does not describe device 0");
  check(cudaDriverGetVersion(&driver), "does not tell its driver's version");
  return {properties.name, "SM" + std::to_string(properties.major) + std::to_string(properties.minor), driver / 1000};
}

// Of the library that is loaded, not of the headers: "10.13.3.9".
std::string installed_version() {
  return std::to_string(getInferLibMajorVersion()) + "." + std::to_string(getInferLibMinorVersion()) + "." +
         std::to_string(getInferLibPatchVersion()) + "." + std::to_string(getInferLibBuildVersion());
}

std::string value_of(const BundleFile& file, const char* key) {
  const auto found = file.built_for.find(key);
  return found == file.built_for.end() ? "" : found->second;
}

bool names(const std::string& targets, const std::string& capability) {
  std::istringstream parts(targets);
  for (std::string part; std::getline(parts, part, '+');) {
    if (part == capability) return true;
  }
  return false;
}

// The four numbers of a release: "10.13.3.9" of "10.13.3.9.post1", as a wheel may call the same library.
std::string version_numbers(const std::string& version) {
  std::size_t end = 0;
  for (int dots = 0; end < version.size(); ++end) {
    const bool is_digit = version[end] >= '0' && version[end] <= '9';
    if (!is_digit && (version[end] != '.' || ++dots == 4)) break;
  }
  return version.substr(0, end);
}

int major_of(const std::string& version) {
  return version.empty() || version[0] < '0' || version[0] > '9' ? 0 : std::atoi(version.c_str());
}

// What the engine was built for and this machine is not, in words; empty where it fits.
std::string differences(const BundleFile& file, const Device& here) {
  std::string found;
  const auto add = [&found](const std::string& text) { found += (found.empty() ? "" : ", ") + text; };
  if (value_of(file, "runtime") != "tensorrt") {
    add("built by " + value_of(file, "runtime") + ", this library runs engines of tensorrt");
  } else if (version_numbers(value_of(file, "version")) != installed_version()) {
    add("built with TensorRT " + value_of(file, "version") + ", installed is " + installed_version());
  }
  const bool is_own = value_of(file, "target") == "current";
  const std::string capability = value_of(file, is_own ? "capability" : "target");
  if (!names(capability, here.capability)) {
    add("built for " + capability + ", this GPU is " + here.capability + " (" + here.name + ")");
  }
  if (is_own && major_of(value_of(file, "driver")) > here.driver_major) {
    add("built with a driver for CUDA " + value_of(file, "driver") + ", this driver is for CUDA " +
        std::to_string(here.driver_major) + ": update it");
  }
  return found;
}

const BundleFile* choose(const Manifest& manifest, const Options& options) {
  const Device here = describe_device();
  std::string misfits;
  for (const BundleFile& file : manifest.files) {
    const bool is_ours = file.role == "engine" && (!file.backend || *file.backend == "tensorrt");
    if (!is_ours || file.precision != options.precision) continue;
    const std::string found = differences(file, here);
    if (found.empty()) return &file;
    misfits += (misfits.empty() ? "" : "; ") + file.path + ": " + found;
  }
  if (misfits.empty()) {
    unavailable("the bundle holds no TensorRT engine in " + options.precision +
                "; make one: samdeploy export --engine trt --precision " + options.precision);
  }
  unavailable("no engine of the bundle fits this machine: " + misfits + kRebuild);
}

class DeviceMemory {
 public:
  ~DeviceMemory() { cudaFree(address_); }
  DeviceMemory() = default;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void reserve(std::size_t size) {
    if (size <= size_) return;
    check(cudaFree(address_), "frees no memory");
    address_ = nullptr, size_ = 0;
    check(cudaMalloc(&address_, size), "has no memory for a batch; use a smaller one");
    size_ = size;
  }
  void* get() const { return address_; }

 private:
  void* address_ = nullptr;
  std::size_t size_ = 0;
};

const char* type_name(nvinfer1::DataType type) {
  return type == nvinfer1::DataType::kUINT8 ? "uint8" : type == nvinfer1::DataType::kFLOAT ? "float32" : "of another type";
}

std::string tensors_of(const nvinfer1::ICudaEngine& engine) {
  std::string inputs, outputs;
  for (std::int32_t i = 0; i < engine.getNbIOTensors(); ++i) {
    const char* name = engine.getIOTensorName(i);
    const nvinfer1::Dims shape = engine.getTensorShape(name);
    std::string text = std::string(name) + " " + type_name(engine.getTensorDataType(name)) + " [";
    for (std::int32_t axis = 0; axis < shape.nbDims; ++axis) {
      text += (axis ? ", " : "") + (shape.d[axis] < 0 ? "N" : std::to_string(shape.d[axis]));
    }
    std::string& all = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT ? inputs : outputs;
    all += (all.empty() ? "" : "; ") + text + "]";
  }
  return inputs + "; " + outputs;
}

// One context, on a stream of its own: threads take turns.
class TensorrtSession final : public Session {
 public:
  TensorrtSession(const Bytes& plan, const BundleFile& file, const Manifest& manifest)
      : height_(manifest.preprocessing.height),
        width_(manifest.preprocessing.width),
        classes_(static_cast<std::int64_t>(manifest.classes.size())) {
    check(cudaSetDevice(0), "does not take device 0");
    const ErrorLines lines;
    runtime_.reset(nvinfer1::createInferRuntime(error_log()));
    if (!runtime_) {
      unavailable("TensorRT " + installed_version() + " does not start: " + lines.report() +
                  "; it may need a newer NVIDIA driver, or this driver a TensorRT for an older CUDA");
    }
    engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine_) {
      unavailable("TensorRT " + installed_version() + " refuses " + file.path + ": " + lines.report() + kRebuild);
    }
    check_tensors(file.path, tensors_of(*engine_), manifest);
    context_.reset(engine_->createExecutionContext());
    if (!context_) unavailable(file.path + ": no execution context can be made: " + lines.report());
    smallest_ = engine_->getProfileShape("image", 0, nvinfer1::OptProfileSelector::kMIN).d[0];
    largest_ = engine_->getProfileShape("image", 0, nvinfer1::OptProfileSelector::kMAX).d[0];
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "makes no stream");
    if (cudaEventCreateWithFlags(&event_, cudaEventDisableTiming) != cudaSuccess) {
      cudaStreamDestroy(stream_);
      unavailable("CUDA makes no event");
    }
  }
  ~TensorrtSession() override {
    cudaStreamSynchronize(stream_);
    cudaEventDestroy(event_);
    cudaStreamDestroy(stream_);
  }

  void run(const std::uint8_t* batch, std::size_t count, float* logits) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    check(cudaSetDevice(0), "does not take device 0");
    // Batches beyond the engine's profile go in pieces; a last one below it is filled up.
    const std::size_t most = static_cast<std::size_t>(largest_), least = static_cast<std::size_t>(smallest_);
    for (std::size_t at = 0; at < count; at += most) {
      const std::size_t rows = std::min(most, count - at), padded = std::max(rows, least);
      images_.reserve(padded * image_bytes());
      logits_.reserve(padded * row_bytes());
      if (padded > rows) check(cudaMemsetAsync(images_.get(), 0, padded * image_bytes(), stream_), "fills no batch");
      check(cudaMemcpyAsync(images_.get(), batch + at * image_bytes(), rows * image_bytes(), cudaMemcpyHostToDevice,
                            stream_),
            "copies no images");
      enqueue(images_.get(), padded, logits_.get());
      check(cudaMemcpyAsync(logits + at * static_cast<std::size_t>(classes_), logits_.get(), rows * row_bytes(),
                            cudaMemcpyDeviceToHost, stream_),
            "copies no logits");
      check(cudaStreamSynchronize(stream_), "failed on a batch of " + std::to_string(rows));
    }
  }

  void run_device(const void* batch, std::size_t count, void* logits, void* stream) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    check(cudaSetDevice(0), "does not take device 0");
    if (count < static_cast<std::size_t>(smallest_) || count > static_cast<std::size_t>(largest_)) {
      unavailable("TensorRT: batch of " + std::to_string(count) + " found, " + std::to_string(smallest_) + " to " +
                  std::to_string(largest_) + " expected by the engine's profile");
    }
    // The context is one for all callers, so their work is put in a row on its stream: it starts after what lies on the
    // caller's stream now, and what comes there later starts after it.
    auto* theirs = static_cast<cudaStream_t>(stream);
    check(cudaEventRecord(event_, theirs), "takes no event");
    check(cudaStreamWaitEvent(stream_, event_, 0), "takes no event");
    if (aligned(batch) && aligned(logits)) {
      enqueue(batch, count, logits);
    } else {  // a slice of a larger array: through our own buffers, on the same stream
      images_.reserve(count * image_bytes());
      logits_.reserve(count * row_bytes());
      check(cudaMemcpyAsync(images_.get(), batch, count * image_bytes(), cudaMemcpyDeviceToDevice, stream_),
            "copies no images");
      enqueue(images_.get(), count, logits_.get());
      check(cudaMemcpyAsync(logits, logits_.get(), count * row_bytes(), cudaMemcpyDeviceToDevice, stream_),
            "copies no logits");
    }
    check(cudaEventRecord(event_, stream_), "takes no event");
    check(cudaStreamWaitEvent(theirs, event_, 0), "takes no event");
  }

 private:
  std::size_t image_bytes() const { return static_cast<std::size_t>(height_ * width_ * 3); }
  std::size_t row_bytes() const { return static_cast<std::size_t>(classes_) * sizeof(float); }

  // TensorRT asks for 256 bytes of every address.
  static bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 256 == 0; }

  void enqueue(const void* images, std::size_t count, void* logits) {
    const ErrorLines lines;
    nvinfer1::Dims shape{};
    shape.nbDims = 4;
    shape.d[0] = static_cast<std::int64_t>(count), shape.d[1] = height_, shape.d[2] = width_, shape.d[3] = 3;
    const bool good = context_->setInputShape("image", shape) &&
                      context_->setTensorAddress("image", const_cast<void*>(images)) &&
                      context_->setTensorAddress("logits", logits) && context_->enqueueV3(stream_);
    if (!good) unavailable("TensorRT failed on a batch of " + std::to_string(count) + ": " + lines.report());
  }

  std::int64_t height_, width_, classes_, smallest_ = 0, largest_ = 0;
  // In this order: contexts go before their engine, and engines before their runtime.
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
  DeviceMemory images_, logits_;
  std::mutex mutex_;
};

std::unique_ptr<Session> open(const Bytes& plan, const BundleFile& file, const Manifest& manifest, const Options&) {
  return std::make_unique<TensorrtSession>(plan, file, manifest);
}

constexpr Backend kTensorrt = {SAMDEPLOY_VERSION, choose, open};

}  // namespace
}  // namespace samdeploy::core

extern "C" __attribute__((visibility("default"))) const samdeploy::core::Backend* samdeploy_backend() {
  return &samdeploy::core::kTensorrt;
}

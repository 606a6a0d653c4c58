// TEST STAND-IN, not TensorRT: it behaves as TensorRT 10.13 does in the few things that cpp/src/tensorrt.cpp relies on.
// A plan is the text "STANDIN H W K"; logit k of an image is the sum of pixel[i] * (i * (k + 1) % 11), in thousandths.
// As in TensorRT, the first logger is kept as the global one, through which everything is logged.
#include "NvInfer.h"

#include <sstream>
#include <string>

namespace {

nvinfer1::ILogger* global_logger = nullptr;
int failures = 0;

bool fail(const std::string& text) {
  global_logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
  return false;
}

struct Context final : nvinfer1::IExecutionContext {
  std::int64_t height, width, classes, batch = 0;
  const std::uint8_t* images = nullptr;
  float* logits = nullptr;
};

struct Engine final : nvinfer1::ICudaEngine {
  std::int64_t height = 0, width = 0, classes = 0;
};

struct Runtime final : nvinfer1::IRuntime {};

}  // namespace

std::int32_t getInferLibMajorVersion() noexcept { return 10; }
std::int32_t getInferLibMinorVersion() noexcept { return 13; }
std::int32_t getInferLibPatchVersion() noexcept { return 3; }
std::int32_t getInferLibBuildVersion() noexcept { return 9; }

namespace nvinfer1 {

IRuntime* createInferRuntime(ILogger& logger) noexcept {
  if (global_logger == nullptr) global_logger = &logger;
  return new Runtime;
}

ICudaEngine* IRuntime::deserializeCudaEngine(const void* plan, std::size_t size) noexcept {
  std::istringstream text(std::string(static_cast<const char*>(plan), size));
  std::string magic;
  auto* engine = new Engine;
  text >> magic >> engine->height >> engine->width >> engine->classes;
  if (magic == "STANDIN" && !text.fail()) return engine;
  delete engine;
  fail("Serialization assertion header.magicTag == rt::kEXPECTED_MAGIC_TAG failed.");
  return nullptr;
}

std::int32_t ICudaEngine::getNbIOTensors() const noexcept { return 2; }
const char* ICudaEngine::getIOTensorName(std::int32_t index) const noexcept { return index ? "logits" : "image"; }
TensorIOMode ICudaEngine::getTensorIOMode(const char* name) const noexcept {
  return std::string(name) == "image" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
}
DataType ICudaEngine::getTensorDataType(const char* name) const noexcept {
  return std::string(name) == "image" ? DataType::kUINT8 : DataType::kFLOAT;
}
Dims ICudaEngine::getTensorShape(const char* name) const noexcept {
  const auto& own = static_cast<const Engine&>(*this);
  if (std::string(name) == "image") return {4, {-1, own.height, own.width, 3}};
  return {2, {-1, own.classes}};
}
Dims ICudaEngine::getProfileShape(const char*, std::int32_t, OptProfileSelector which) const noexcept {
  const auto& own = static_cast<const Engine&>(*this);
  return {4, {which == OptProfileSelector::kMAX ? 8 : 1, own.height, own.width, 3}};
}
IExecutionContext* ICudaEngine::createExecutionContext() noexcept {
  const auto& own = static_cast<const Engine&>(*this);
  auto* context = new Context;
  context->height = own.height, context->width = own.width, context->classes = own.classes;
  return context;
}

bool IExecutionContext::setInputShape(const char*, const Dims& shape) noexcept {
  static_cast<Context&>(*this).batch = shape.d[0];
  return true;
}
bool IExecutionContext::setTensorAddress(const char* name, void* address) noexcept {
  if (reinterpret_cast<std::uintptr_t>(address) % 256 != 0) return fail("address is not aligned to 256 bytes");
  auto& own = static_cast<Context&>(*this);
  if (std::string(name) == "image") {
    own.images = static_cast<const std::uint8_t*>(address);
  } else {
    own.logits = static_cast<float*>(address);
  }
  return true;
}
// An image whose first byte is 251 fails.
bool IExecutionContext::enqueueV3(CUstream_st*) noexcept {
  const auto& own = static_cast<Context&>(*this);
  const std::int64_t pixels = own.height * own.width * 3;
  for (std::int64_t n = 0; n < own.batch; ++n) {
    const std::uint8_t* image = own.images + n * pixels;
    if (image[0] == 251) return fail("failure " + std::to_string(++failures));
    for (std::int64_t k = 0; k < own.classes; ++k) {
      std::int64_t sum = 0;
      for (std::int64_t i = 0; i < pixels; ++i) sum += image[i] * (i * (k + 1) % 11);
      own.logits[n * own.classes + k] = static_cast<float>(static_cast<double>(sum) * 1e-3);
    }
  }
  return true;
}

}  // namespace nvinfer1

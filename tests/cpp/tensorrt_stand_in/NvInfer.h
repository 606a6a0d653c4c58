// TEST STAND-IN, not TensorRT's header: only those declarations that cpp/src/tensorrt.cpp uses, written from TensorRT
// 10's documentation, so that the file can be checked for syntax and types where the real header cannot be had.
// Nothing can be linked or run with it.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;

extern "C" std::int32_t getInferLibMajorVersion() noexcept;
extern "C" std::int32_t getInferLibMinorVersion() noexcept;
extern "C" std::int32_t getInferLibPatchVersion() noexcept;
extern "C" std::int32_t getInferLibBuildVersion() noexcept;

namespace nvinfer1 {

enum class DataType : std::int32_t { kFLOAT = 0, kUINT8 = 5 };
enum class TensorIOMode : std::int32_t { kNONE = 0, kINPUT = 1, kOUTPUT = 2 };
enum class OptProfileSelector : std::int32_t { kMIN = 0, kOPT = 1, kMAX = 2 };

struct Dims64 {
  static constexpr std::int32_t MAX_DIMS = 8;
  std::int32_t nbDims;
  std::int64_t d[MAX_DIMS];
};
using Dims = Dims64;

class ILogger {
 public:
  enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
  virtual void log(Severity severity, const char* text) noexcept = 0;
  virtual ~ILogger() = default;
};

class IExecutionContext {
 public:
  virtual ~IExecutionContext() noexcept = default;
  bool setInputShape(const char* name, const Dims& shape) noexcept;
  bool setTensorAddress(const char* name, void* address) noexcept;
  bool enqueueV3(CUstream_st* stream) noexcept;
};

class ICudaEngine {
 public:
  virtual ~ICudaEngine() noexcept = default;
  std::int32_t getNbIOTensors() const noexcept;
  const char* getIOTensorName(std::int32_t index) const noexcept;
  Dims getTensorShape(const char* name) const noexcept;
  DataType getTensorDataType(const char* name) const noexcept;
  TensorIOMode getTensorIOMode(const char* name) const noexcept;
  Dims getProfileShape(const char* name, std::int32_t profile, OptProfileSelector which) const noexcept;
  IExecutionContext* createExecutionContext() noexcept;
};

class IRuntime {
 public:
  virtual ~IRuntime() noexcept = default;
  ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t size) noexcept;
};

IRuntime* createInferRuntime(ILogger& logger) noexcept;

}  // namespace nvinfer1

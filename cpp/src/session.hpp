// What every runtime promises, and the checks that are written once for all of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "bundle.hpp"
#include "error.hpp"

namespace samdeploy::core {

struct Options {
  std::string backend = "openvino";
  std::string precision = "fp32";
  int threads = 0;   // that compute; 0: the runtime's choice
  int requests = 1;  // inferences at the same time
};

// One engine.  A backend's author writes `run`, which many threads may call at once.
class __attribute__((visibility("default"))) Session {
 public:
  virtual ~Session() = default;
  // uint8 [count, H, W, 3], RGB -> float32 [count, K], both owned by the caller.
  // Throws UNAVAILABLE: the runtime failed.
  virtual void run(const std::uint8_t* batch, std::size_t count, float* logits) = 0;
  // The same between addresses of CUDA device 0, batch, count, logits and
  // the stream (a cudaStream_t) on which the work is queued without waiting.
  // Throws UNAVAILABLE: the runtime has no device, or failed.
  virtual void run_device(const void*, std::size_t, void*, void*) {
    throw Error(SAMDEPLOY_UNAVAILABLE, "this backend takes images in host memory only; use backend tensorrt");
  }
};

// Opens the bundle's engine and makes it prove itself on the golden images, which are verified before a runtime
// sees a byte.
// Throws ARGUMENT: unknown backend or precision.  UNAVAILABLE, TENSORS, WRONG_ANSWERS, or what `Bundle` throws.
std::unique_ptr<Session> open_session(const Bundle& bundle, const Options& options);

// Throws WRONG_ANSWERS unless the golden images give the trained network's logits within the precision's tolerance.
void check_golden(Session& session, const Golden& golden, std::size_t classes, const Options& options);

}  // namespace samdeploy::core

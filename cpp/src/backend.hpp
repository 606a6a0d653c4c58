// A runtime is a library of its own, libsamdeploy-NAME.so, which is loaded when a bundle is opened with it: the rest
// works where no runtime is installed, and one that is missing is an error with a sentence.  Both sides come from one
// build, so C++ may cross between them; `version` is compared all the same.
#pragma once

#include "error.hpp"
#include "session.hpp"

namespace samdeploy::core {

struct Backend {
  const char* version;  // SAMDEPLOY_VERSION of its build
  // The bundle's file that fits the precision and this machine; the runtime has not seen a byte of it yet.
  // Throws UNAVAILABLE: there is none.
  const BundleFile* (*choose)(const Manifest& manifest, const Options& options);
  // `content` of the chosen file is verified.  Throws UNAVAILABLE or TENSORS.
  std::unique_ptr<Session> (*open)(const Bytes& content, const BundleFile& file, const Manifest& manifest,
                                   const Options& options);
};

// What every backend's library exports, under this name.
using BackendEntry = const Backend*();
constexpr const char* kBackendEntry = "samdeploy_backend";

// Loads the library of a backend, once per process.
// Throws ARGUMENT: no such backend is known.  UNAVAILABLE: it was not built, or its runtime is not installed.
const Backend& load_backend(const std::string& name);

// The ONNX graph that the backends with graphs run: INT8 and FP16 have one of their own, BF16 shares the FP32 one.
// Throws UNAVAILABLE.
inline const BundleFile* choose_graph(const Manifest& manifest, const Options& options) {
  const std::string wanted = options.precision == "bf16" ? "fp32" : options.precision;
  const BundleFile* file = find_file(manifest, "graph", options.backend, wanted);
  if (file) return file;
  throw Error(SAMDEPLOY_UNAVAILABLE, "the bundle holds no graph in " + wanted + " that " + options.backend +
                                         " can run; make one: samdeploy export RUN --precision " + options.precision);
}

// Throws what a runtime could not do: NO_MEMORY, or UNAVAILABLE.  `said` is all that it says, `reason` what of it is
// told: a runtime wraps its std::bad_alloc in an error of its own, so that only the words are left.
[[noreturn]] inline void refuse(const std::string& what, const std::string& said, const std::string& reason) {
  const char* const words[] = {"bad_alloc", "bad allocation", "llocate memory", "to allocate", "can't alloc",
                               "out of memory"};
  for (const char* word : words) {
    if (said.find(word) != std::string::npos) throw Error(SAMDEPLOY_NO_MEMORY, what + ": " + kMemoryIsFull);
  }
  throw Error(SAMDEPLOY_UNAVAILABLE, what + ": " + reason);
}

// Throws TENSORS unless `found` is what the manifest states.
inline void check_tensors(const std::string& what, const std::string& found, const Manifest& manifest) {
  const std::string wanted = "image uint8 [N, " + std::to_string(manifest.preprocessing.height) + ", " +
                             std::to_string(manifest.preprocessing.width) + ", 3]; logits float32 [N, " +
                             std::to_string(manifest.classes.size()) + "]";
  if (found == wanted) return;
  throw Error(SAMDEPLOY_TENSORS, what + ": tensors " + found + " found, " + wanted +
                                     " expected by the manifest; engine and manifest do not belong together");
}

}  // namespace samdeploy::core

#include "backend.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

namespace samdeploy::core {
namespace {

struct Known {
  const char* name;
  const char* title;
  const char* cure;  // where its library was not built
};

constexpr Known kKnown[] = {
    {"openvino", "OpenVINO", "pip install openvino, then build the library again"},
    {"onnxruntime", "ONNX Runtime", "build the library again where onnxruntime_c_api.h is found"},
    {"tensorrt", "TensorRT", "build the library again where NvInfer.h and cuda_runtime_api.h are found"},
};

// The folder that this code was loaded from, with a slash at its end; empty where it is not known.
std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&load_backend), &info) == 0 || info.dli_fname == nullptr) return "";
  const std::string path = info.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

const Backend& load(const Known& known) {
  const std::string file = std::string("libsamdeploy-") + known.name + ".so", path = own_folder() + file;
  // Never closed: OpenVINO and CUDA leave threads and exit handlers behind.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* text = dlerror();
    const std::string why = text == nullptr ? "no reason given" : text;
    const bool is_absent = access(path.c_str(), F_OK) != 0;
    throw Error(SAMDEPLOY_UNAVAILABLE,
                is_absent ? std::string("this library was built without ") + known.title +
                                ", or installed without that part (there is no " + path + "); " + known.cure
                          : std::string(known.title) + " cannot be loaded: " + why +
                                "; install it, or name its folder in LD_LIBRARY_PATH");
  }
  auto* entry = reinterpret_cast<BackendEntry*>(dlsym(library, kBackendEntry));
  if (entry == nullptr || std::strcmp(entry()->version, SAMDEPLOY_VERSION) != 0) {
    throw Error(SAMDEPLOY_UNAVAILABLE, path + " belongs to samdeploy " +
                                           (entry == nullptr ? "of an unknown version" : entry()->version) + ", " +
                                           SAMDEPLOY_VERSION + " expected; install both from one build");
  }
  return *entry();
}

}  // namespace

const Backend& load_backend(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, const Backend*> loaded;
  const auto* known =
      std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& each) { return name == each.name; });
  if (known == std::end(kKnown)) {
    std::string valid;
    for (const Known& each : kKnown) valid += (valid.empty() ? "" : ", ") + std::string(each.name);
    throw Error(SAMDEPLOY_ARGUMENT, "unknown backend '" + name.substr(0, 60) + "'. Valid: " + valid);
  }
  const std::lock_guard<std::mutex> lock(mutex);
  const Backend*& found = loaded[name];
  if (found == nullptr) found = &load(*known);
  return *found;
}

}  // namespace samdeploy::core

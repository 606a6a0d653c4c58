// ONNX Runtime on the CPU: FP32, and INT8 where its profile shows INT8 convolutions, as in
// samdeploy/backends/onnxruntime/session.py.  Only headers are needed to build it: the library is loaded when it is asked for,
// because the one in the Python package carries no name that a linker would find.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend.hpp"
#include "file_size_signal.hpp"
#include "pool.hpp"
#include "sealed.hpp"

namespace samdeploy::core {
namespace {

constexpr double kMinInt8Share = 50.0;  // percent of the convolutions; see samdeploy/backends/onnxruntime/int8_proof.py

const OrtApi* api = nullptr;  // set once, by load_api

[[noreturn]] void unavailable(const std::string& text) { throw Error(SAMDEPLOY_UNAVAILABLE, "ONNX Runtime " + text); }

// Throws what a status tells, and frees it.
void check(OrtStatus* status, const std::string& what) {
  if (status == nullptr) return;
  const std::string text = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  refuse("ONNX Runtime " + what, text, text.substr(0, text.find('\n')));
}

template <typename Thing, void (*OrtApi::*release)(Thing*)>
struct Release {
  void operator()(Thing* thing) const { (api->*release)(thing); }
};
#define SAMDEPLOY_ORT(Name) std::unique_ptr<Ort##Name, Release<Ort##Name, &OrtApi::Release##Name>>
using SessionOptions = SAMDEPLOY_ORT(SessionOptions);
using Inference = SAMDEPLOY_ORT(Session);
using Value = SAMDEPLOY_ORT(Value);
using MemoryInfo = SAMDEPLOY_ORT(MemoryInfo);
using Binding = SAMDEPLOY_ORT(IoBinding);
using TypeInfo = SAMDEPLOY_ORT(TypeInfo);
#undef SAMDEPLOY_ORT

const OrtApi* load_api() {
  // The one that was there at the build, then whatever the system's loader finds.
  const char* const names[] = {SAMDEPLOY_ONNXRUNTIME_LIBRARY, "libonnxruntime.so.1", "libonnxruntime.so"};
  std::string why;
  for (const char* name : names) {
    if (name[0] == '\0') continue;
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      why += (why.empty() ? "" : "; ") + std::string(dlerror());
      continue;
    }
    using Entry = const OrtApiBase*();
    auto* entry = reinterpret_cast<Entry*>(dlsym(library, "OrtGetApiBase"));
    const OrtApi* found = entry == nullptr ? nullptr : entry()->GetApi(ORT_API_VERSION);
    if (found != nullptr) return found;
    why += std::string(why.empty() ? "" : "; ") + name + " is older than 1." + std::to_string(ORT_API_VERSION);
  }
  unavailable("cannot be loaded: " + why + "; pip install onnxruntime, or name its folder in LD_LIBRARY_PATH");
}

OrtEnv* environment() {
  // Never released: at the end of a forked process that would wait for threads which only its parent has.
  static OrtEnv* const made = [] {
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // read when the library is loaded; what the user has set stays
    api = load_api();
    OrtEnv* env = nullptr;
    check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "samdeploy", &env), "cannot start");
    return env;
  }();
  return made;
}

const BundleFile* choose(const Manifest& manifest, const Options& options) {
  if (options.precision == "fp16" || options.precision == "bf16") {
    unavailable("has no " + options.precision + " kernels on the CPU and would compute in FP32; use precision fp32");
  }
  return choose_graph(manifest, options);
}

Inference compile(const Bytes& graph, const Options& options, const char* profile) {
  OrtEnv* env = environment();
  OrtSessionOptions* raw = nullptr;
  check(api->CreateSessionOptions(&raw), "cannot start");
  const SessionOptions session(raw);
  check(api->SetSessionLogSeverityLevel(raw, ORT_LOGGING_LEVEL_ERROR), "cannot start");
  // uint8 times int8 overflows 16 bits on CPUs without VNNI; this makes ONNX Runtime take slower kernels there.
  check(api->AddSessionConfigEntry(raw, "session.x64quantprecision", "1"), "cannot start");
  if (options.threads > 0) check(api->SetIntraOpNumThreads(raw, options.threads), "refuses the number of threads");
  if (profile != nullptr) check(api->EnableProfiling(raw, profile), "cannot write its profile");
  OrtSession* made = nullptr;
  const SealedFile sealed(graph);
  check(api->CreateSession(env, sealed.path().c_str(), raw, &made), "cannot open the graph");
  return Inference(made);
}

std::string tensors_of(OrtSession* session) {
  OrtAllocator* allocator = nullptr;
  check(api->GetAllocatorWithDefaultOptions(&allocator), "cannot start");
  std::string found;
  const auto add = [&](bool is_input, std::size_t index) {
    char* name = nullptr;
    check((is_input ? api->SessionGetInputName : api->SessionGetOutputName)(session, index, allocator, &name), "names");
    found += (found.empty() ? "" : "; ") + std::string(name) + " ";
    check(api->AllocatorFree(allocator, name), "names");
    OrtTypeInfo* raw = nullptr;
    check((is_input ? api->SessionGetInputTypeInfo : api->SessionGetOutputTypeInfo)(session, index, &raw), "types");
    const TypeInfo info(raw);
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;  // belongs to `info`
    check(api->CastTypeInfoToTensorInfo(raw, &tensor), "types");
    if (tensor == nullptr) {
      found += "of no tensor";
      return;
    }
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    std::size_t axes = 0;
    check(api->GetTensorElementType(tensor, &type), "types");
    check(api->GetDimensionsCount(tensor, &axes), "shapes");
    std::vector<std::int64_t> shape(axes);
    check(api->GetDimensions(tensor, shape.data(), axes), "shapes");
    found += type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8   ? "uint8 ["
             : type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? "float32 ["
                                                           : "of type " + std::to_string(type) + " [";
    for (std::size_t i = 0; i < axes; ++i) {
      found += (i ? ", " : "") + (shape[i] < 0 ? "N" : std::to_string(shape[i]));
    }
    found += "]";
  };
  std::size_t inputs = 0, outputs = 0;
  check(api->SessionGetInputCount(session, &inputs), "inputs");
  check(api->SessionGetOutputCount(session, &outputs), "outputs");
  for (std::size_t i = 0; i < inputs; ++i) add(true, i);
  for (std::size_t i = 0; i < outputs; ++i) add(false, i);
  return found;
}

class OnnxruntimeSession final : public Session {
 public:
  OnnxruntimeSession(Inference inference, const Manifest& manifest, int requests)
      : inference_(std::move(inference)),
        height_(manifest.preprocessing.height),
        width_(manifest.preprocessing.width),
        classes_(static_cast<std::int64_t>(manifest.classes.size())),
        requests_(static_cast<std::size_t>(requests)) {
    OrtMemoryInfo* memory = nullptr;
    check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "cannot start");
    memory_.reset(memory);
    for (Request& request : requests_.all()) {
      OrtIoBinding* binding = nullptr;
      check(api->CreateIoBinding(inference_.get(), &binding), "cannot start");
      request.binding.reset(binding);
    }
  }

  void run(const std::uint8_t* batch, std::size_t count, float* logits) override {
    const Pool<Request>::Loan request = requests_.borrow();
    if (request->count != count) bind(&*request, count);
    std::memcpy(request->images.data(), batch, request->images.size());
    if (OrtStatus* status = api->RunWithBinding(inference_.get(), nullptr, request->binding.get())) {
      check(status, "failed on a batch of " + std::to_string(count));
    }
    std::memcpy(logits, request->logits.data(), request->logits.size() * sizeof(float));
  }

 private:
  struct Request {
    Binding binding;
    Value input, output;  // over the two below
    Bytes images;
    std::vector<float> logits;
    std::size_t count = 0;
  };

  // Memory of the request's own, kept from call to call.
  void bind(Request* request, std::size_t count) {
    request->count = 0;
    const std::int64_t rows = static_cast<std::int64_t>(count);
    const std::int64_t images[] = {rows, height_, width_, 3}, logits[] = {rows, classes_};
    request->images.resize(static_cast<std::size_t>(rows * height_ * width_ * 3));
    request->logits.resize(static_cast<std::size_t>(rows * classes_));
    request->input = tensor(request->images.data(), request->images.size(), images, 4,
                            ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
    request->output = tensor(request->logits.data(), request->logits.size() * sizeof(float), logits, 2,
                             ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
    check(api->BindInput(request->binding.get(), "image", request->input.get()), "cannot take the images");
    check(api->BindOutput(request->binding.get(), "logits", request->output.get()), "cannot give the logits");
    request->count = count;
  }

  Value tensor(void* data, std::size_t bytes, const std::int64_t* shape, std::size_t axes,
               ONNXTensorElementDataType type) {
    OrtValue* made = nullptr;
    check(api->CreateTensorWithDataAsOrtValue(memory_.get(), data, bytes, shape, axes, type, &made), "makes no tensor");
    return Value(made);
  }

  Inference inference_;  // first: bindings and tensors go before it
  MemoryInfo memory_;
  std::int64_t height_, width_, classes_;
  Pool<Request> requests_;
};

// Percent of the convolutions that computed in INT8, by the profile of one run.
double int8_share(const std::string& path) {
  std::ifstream file(path);
  const nlohmann::json events = nlohmann::json::parse(file, nullptr, false);
  double int8 = 0.0, all = 0.0;
  if (!events.is_array()) return 0.0;
  for (const nlohmann::json& event : events) {
    if (!event.is_object() || event.value("cat", "") != "Node" || !event.contains("args")) continue;
    const nlohmann::json& arguments = event["args"];
    const std::string name = arguments.value("op_name", "");
    if (name.find("Conv") == std::string::npos || !arguments.contains("input_type_shape")) continue;
    const nlohmann::json& inputs = arguments["input_type_shape"];
    if (!inputs.is_array() || inputs.empty() || !inputs[0].is_object() || inputs[0].empty()) continue;
    const std::string type = inputs[0].begin().key();
    int8 += type == "uint8" || type == "int8" ? 1.0 : 0.0;
    all += 1.0;
  }
  return all == 0.0 ? 0.0 : 100.0 * int8 / all;
}

// Runs one black image under the profiler, the only inspector that ONNX Runtime has.
void prove_int8(const Bytes& graph, const Manifest& manifest, const Options& options) {
  const char* temporary = getenv("TMPDIR");
  std::string folder = std::string(temporary && *temporary ? temporary : "/tmp") + "/samdeploy-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    unavailable("cannot prove its INT8 arithmetic: no folder for its profile can be made (" + folder + ", " +
                std::strerror(errno) + "); name one in TMPDIR");
  }
  std::string path;
  double share = 0.0;
  const NoFileSizeSignal guard;  // for the profile
  try {
    Inference inference = compile(graph, options, (folder + "/profile").c_str());
    OrtSession* raw = inference.get();
    const Bytes black(static_cast<std::size_t>(manifest.preprocessing.height * manifest.preprocessing.width * 3), 0);
    std::vector<float> logits(manifest.classes.size());
    OnnxruntimeSession session(std::move(inference), manifest, 1);
    session.run(black.data(), 1, logits.data());
    OrtAllocator* allocator = nullptr;
    check(api->GetAllocatorWithDefaultOptions(&allocator), "cannot write its profile");
    char* name = nullptr;
    check(api->SessionEndProfiling(raw, allocator, &name), "cannot write its profile");
    path = name;
    check(api->AllocatorFree(allocator, name), "cannot write its profile");
    share = int8_share(path);
  } catch (...) {
    if (!path.empty()) std::remove(path.c_str());
    rmdir(folder.c_str());
    throw;
  }
  std::remove(path.c_str());
  rmdir(folder.c_str());
  if (share < kMinInt8Share) {
    unavailable("computes only " + std::to_string(static_cast<int>(share)) +
                " % of the convolutions in int8, 50 % expected; export again, or use another precision or backend");
  }
}

std::unique_ptr<Session> open(const Bytes& graph, const BundleFile&, const Manifest& manifest, const Options& options) {
  Inference inference = compile(graph, options, nullptr);
  check_tensors("the ONNX Runtime graph", tensors_of(inference.get()), manifest);
  if (options.precision == "int8") prove_int8(graph, manifest, options);
  return std::make_unique<OnnxruntimeSession>(std::move(inference), manifest, options.requests);
}

constexpr Backend kOnnxruntime = {SAMDEPLOY_VERSION, choose, open};

}  // namespace
}  // namespace samdeploy::core

extern "C" __attribute__((visibility("default"))) const samdeploy::core::Backend* samdeploy_backend() {
  return &samdeploy::core::kOnnxruntime;
}

// OpenVINO on the CPU: FP32, INT8, and BF16 or FP16 where the processor computes in it.  As in
// samdeploy/backends/openvino/session.py, what was asked for is proved twice: the hint that took effect, and the type that each
// convolution and matrix product of the compiled network computes in.
#include <cstring>
#include <map>
#include <openvino/frontend/manager.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/openvino.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "backend.hpp"
#include "pool.hpp"
#include "sealed.hpp"

namespace samdeploy::core {
namespace {

constexpr double kMinShare = 95.0;  // percent of the multiply-adds that must compute in the precision asked for

ov::element::Type hint_of(const std::string& precision) {
  if (precision == "bf16") return ov::element::bf16;
  if (precision == "fp16") return ov::element::f16;
  return ov::element::f32;  // what an INT8 graph leaves unquantised must stay FP32
}

bool computes_in(const std::string& type, const std::string& precision) {
  return precision == "int8" ? type == "u8" || type == "i8" : type == hint_of(precision).get_type_name();
}

[[noreturn]] void unavailable(const std::string& what, const std::exception& error) {
  // OpenVINO puts its own source lines first; the last line that says something is the reason.
  std::istringstream lines(error.what());
  std::string reason = "no reason given";
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) reason = line;
  }
  refuse("OpenVINO " + what, error.what(), reason);
}

bool is_a(const ov::Node* node, const char* type) { return std::strcmp(node->get_type_name(), type) == 0; }

// Element type of the constant that the weights come from, before nodes that turn it into float; for a product of two
// tensors of the image, the type of the product.
std::string weight_type(const ov::Node* node) {
  const ov::Node* source = node->get_input_node_ptr(1);
  while (source->get_input_size() != 0) source = source->get_input_node_ptr(0);
  return (is_a(source, "Parameter") ? node : source)->get_output_element_type(0).get_type_name();
}

// For one image; axes that the batch is part of count as 1.
double multiply_adds(const std::shared_ptr<ov::Node>& node) {
  const ov::PartialShape output = node->get_output_partial_shape(0);
  std::vector<ov::Dimension> factors(output.begin(), output.end());
  if (const auto product = ov::as_type_ptr<ov::op::v0::MatMul>(node)) {
    const ov::PartialShape read = node->get_input_partial_shape(0);
    factors.push_back(read[read.size() - (product->get_transpose_a() ? 2 : 1)]);
  } else {
    const ov::PartialShape weights = node->get_input_partial_shape(1);
    factors.erase(factors.begin(), factors.begin() + 2);
    factors.insert(factors.end(), weights.begin(), weights.end());
  }
  double count = 1.0;
  for (const ov::Dimension& side : factors) count *= side.is_dynamic() ? 1.0 : static_cast<double>(side.get_length());
  return count;
}

// Multiply-adds of a graph's convolutions and matrix products for one image, by name: those that should compute in the
// precision that was asked for, and those that the graph keeps in FP32.
struct Work {
  std::map<std::string, double> in_precision, in_fp32;
  // Node -> those after it that may be folded into it; the fused node may lose its name.
  std::map<std::string, std::vector<std::string>> followers;
};

// Names of what may be folded into a node: those after it, each the only reader of the one before but for shapes.
std::vector<std::string> followers_of(ov::Node* node) {
  std::vector<std::string> found;
  while (true) {
    std::vector<ov::Node*> readers;
    for (const ov::Input<ov::Node>& port : node->output(0).get_target_inputs()) {
      if (!is_a(port.get_node(), "ShapeOf")) readers.push_back(port.get_node());
    }
    if (readers.size() != 1) return found;
    node = readers.front();
    const std::string type = node->get_type_name();
    const bool folded = type == "Add" || type == "Multiply" || type == "Concat" || type == "BatchNormInference";
    if (!folded) return found;
    found.push_back(node->get_friendly_name());
  }
}

Work work_of(const ov::Model& model, const std::string& precision) {
  const std::string narrow = precision == "int8" ? "i8" : precision == "fp16" ? "f16" : "";  // none: all, in any type
  Work found;
  for (const std::shared_ptr<ov::Node>& node : model.get_ordered_ops()) {
    if (!is_a(node.get(), "Convolution") && !is_a(node.get(), "MatMul")) continue;
    auto& part = narrow.empty() || weight_type(node.get()) == narrow ? found.in_precision : found.in_fp32;
    part[node->get_friendly_name()] = multiply_adds(node);
    found.followers[node->get_friendly_name()] = followers_of(node.get());
  }
  return found;
}

// Original name -> element type of what convolutions and matrix products of the network as it runs were made from.  A
// subgraph holds the two products of attention with the softmax between them.
std::map<std::string, std::string> types_of_work(const ov::CompiledModel& compiled) {
  std::map<std::string, std::string> found;
  for (const std::shared_ptr<ov::Node>& node : compiled.get_runtime_model()->get_ordered_ops()) {
    ov::RTMap& info = node->get_rt_info();
    const auto text = [&info](const char* key) {
      const auto at = info.find(key);
      return at == info.end() ? std::string() : at->second.as<std::string>();
    };
    const std::string kind = text("layerType");
    if (kind != "Convolution" && kind != "FullyConnected" && kind != "MatMul" && kind != "Subgraph") continue;
    // Several original nodes were fused into this one; which of them multiplies need not be known.
    std::istringstream names(text("originalLayersNames"));
    for (std::string name; std::getline(names, name, ',');) found[name] = text("runtimePrecision");
  }
  return found;
}

void prove(const ov::CompiledModel& compiled, const Work& work, const std::string& precision) {
  if (work.in_precision.empty()) {
    throw Error(SAMDEPLOY_TENSORS, "the " + precision + " graph computes nothing in " + precision +
                                       "; make it again: samdeploy export");
  }
  std::map<std::string, std::string> types = types_of_work(compiled);
  for (const auto& [name, followers] : work.followers) {
    if (types.count(name)) continue;
    for (const std::string& other : followers) {
      const auto type = types.find(other);
      if (type == types.end()) continue;
      types[name] = type->second;
      break;
    }
  }
  for (const auto& [name, count] : work.in_fp32) {
    const auto type = types.find(name);
    if (type == types.end() || type->second != "f16") continue;
    throw Error(SAMDEPLOY_UNAVAILABLE, "OpenVINO computes all layers in FP16, also those that FP16 cannot hold and the "
                                       "graph keeps in FP32 (" + name.substr(0, name.find('/')) +
                                           "); use precision bf16 or fp32");
  }
  double done = 0.0, all = 0.0;
  std::string wrong;
  for (const auto& [name, count] : work.in_precision) {
    const auto type = types.find(name);
    all += count;
    if (type != types.end() && computes_in(type->second, precision)) done += count;
    else if (wrong.empty()) wrong = name + " in " + (type == types.end() ? "no type" : type->second);
  }
  if (100.0 * done / all < kMinShare) {
    throw Error(SAMDEPLOY_UNAVAILABLE, "OpenVINO computes only " + std::to_string(100.0 * done / all) + " % of the " +
                                           precision + " multiply-adds in that type on this CPU, 95 % expected (" +
                                           wrong + "); use another precision");
  }
}

std::string tensors_of(const ov::CompiledModel& compiled) {
  std::string found;
  const auto add = [&found](const ov::Output<const ov::Node>& port) {
    std::string type = port.get_element_type().get_type_name();
    type = type == "u8" ? "uint8" : type == "f32" ? "float32" : type;
    found += (found.empty() ? "" : "; ") + port.get_any_name() + " " + type + " [";
    const ov::PartialShape shape = port.get_partial_shape();
    for (std::size_t i = 0; i < shape.size(); ++i) {
      found += (i ? ", " : "") + (shape[i].is_dynamic() ? "N" : std::to_string(shape[i].get_length()));
    }
    found += "]";
  };
  for (const auto& port : compiled.inputs()) add(port);
  for (const auto& port : compiled.outputs()) add(port);
  return found;
}

class OpenvinoSession final : public Session {
 public:
  OpenvinoSession(ov::CompiledModel compiled, const Manifest& manifest, int requests)
      : compiled_(std::move(compiled)),
        height_(static_cast<std::size_t>(manifest.preprocessing.height)),
        width_(static_cast<std::size_t>(manifest.preprocessing.width)),
        classes_(manifest.classes.size()),
        requests_(static_cast<std::size_t>(requests)) {
    for (Request& request : requests_.all()) request.infer = compiled_.create_infer_request();
  }

  void run(const std::uint8_t* batch, std::size_t count, float* logits) override {
    const Pool<Request>::Loan request = requests_.borrow();
    try {
      // A tensor of the request's own, kept from call to call: wrapping the caller's memory would reserve some.
      if (request->count != count) {
        request->count = 0;
        request->pixels = ov::Tensor(ov::element::u8, {count, height_, width_, 3});
        request->infer.set_input_tensor(request->pixels);
        request->count = count;
      }
      std::memcpy(request->pixels.data<std::uint8_t>(), batch, count * height_ * width_ * 3);
      request->infer.infer();
      const ov::Tensor answer = request->infer.get_output_tensor();
      if (answer.get_size() != count * classes_) throw std::runtime_error("the answer has another shape than expected");
      std::memcpy(logits, answer.data<float>(), count * classes_ * sizeof(float));
    } catch (const std::exception& error) {
      unavailable("failed on a batch of " + std::to_string(count), error);
    }
  }

 private:
  struct Request {
    ov::InferRequest infer;
    ov::Tensor pixels;
    std::size_t count = 0;
  };

  ov::CompiledModel compiled_;
  std::size_t height_, width_, classes_;
  Pool<Request> requests_;
};

std::unique_ptr<Session> open(const Bytes& graph, const BundleFile&, const Manifest& manifest, const Options& options) {
  const ov::element::Type hint = hint_of(options.precision);
  ov::AnyMap config = {
      // Always said: left out, OpenVINO computes in bf16 by itself on CPUs that have it.
      ov::hint::inference_precision(hint),
      ov::hint::execution_mode(ov::hint::ExecutionMode::ACCURACY),
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
  };
  if (options.threads > 0) config.insert(ov::inference_num_threads(options.threads));
  if (options.requests > 1) config.insert(ov::num_streams(options.requests));
  ov::CompiledModel compiled;
  Work work;
  ov::element::Type effective;
  const SealedFile sealed(graph);
  try {
    ov::Core core;
    // Not Core::read_model, which asks every format's reader about a path without ".onnx" at its end.
    const ov::frontend::FrontEnd::Ptr reader = ov::frontend::FrontEndManager().load_by_framework("onnx");
    const std::shared_ptr<ov::Model> model = reader->convert(reader->load(sealed.path()));
    work = work_of(*model, options.precision);
    compiled = core.compile_model(model, "CPU", config);
    effective = compiled.get_property(ov::hint::inference_precision);
  } catch (const std::exception& error) {
    unavailable("cannot compile the graph", error);
  }
  if (effective != hint) {
    throw Error(SAMDEPLOY_UNAVAILABLE, "OpenVINO has no " + options.precision + " arithmetic for this CPU, and would " +
                                           "compute in " + effective.get_type_name() + "; use precision fp32");
  }
  check_tensors("the OpenVINO graph", tensors_of(compiled), manifest);
  prove(compiled, work, options.precision);
  return std::make_unique<OpenvinoSession>(std::move(compiled), manifest, options.requests);
}

constexpr Backend kOpenvino = {SAMDEPLOY_VERSION, choose_graph, open};

}  // namespace
}  // namespace samdeploy::core

extern "C" __attribute__((visibility("default"))) const samdeploy::core::Backend* samdeploy_backend() {
  return &samdeploy::core::kOpenvino;
}

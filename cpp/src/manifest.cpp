#include "manifest.hpp"

#include <algorithm>
#include <numeric>
#include <set>

#include "json.hpp"

namespace samdeploy::core {
namespace {

constexpr const char* kFormat = "samdeploy-bundle";
constexpr std::int64_t kVersion = 1;
constexpr std::size_t kMostFiles = 4096;
const std::vector<std::string> kResizes = {"bilinear-antialias-vertical-first-q22",
                                           "bicubic-antialias-vertical-first-q22"};  // in the order of Filter
const std::vector<std::string> kFits = {"squeeze", "center_crop"}, kCrops = {"floor", "half-even"};
const std::vector<std::string> kRoles = {"weights",       "graph",    "cam_graph",    "engine",       "golden_images",
                                         "golden_logits", "headroom", "quantization", "train_hashes", "val_hashes"};
const std::vector<std::string> kPrecisions = {"fp32", "fp16", "bf16", "int8"};
const std::vector<IsType> kScalar = {&Json::is_string, &Json::is_number, &Json::is_boolean};
constexpr const char* kScalarNames = "texts, numbers and booleans";

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : between) + part;
  return text;
}

// Reports a name that is none of `names`.
void check_name(const std::string& what, const std::string& found, const std::vector<std::string>& names,
                Problems* problems) {
  if (contains(names, found)) return;
  problems->add(what + " '" + found.substr(0, 60) + "' found, one of " + joined(names, ", ") + " expected");
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void check_sha256(const std::string& key, const std::string& text, Fields* fields) {
  if (!is_sha256(text)) fields->report(key + " must be 64 lower-case hexadecimal digits");
}

void check_format(const Json& root, const std::string& where) {
  const auto format = root.find("format"), version = root.find("version");
  if (format == root.end() || *format != kFormat) {
    const std::string found = format == root.end() ? "none" : shown(*format);
    throw Error(SAMDEPLOY_MANIFEST, where + ": format " + found + " found, '" + kFormat + "' expected");
  }
  if (version == root.end() || !version->is_number_integer() || *version < 1) {
    const std::string found = version == root.end() ? "none" : shown(*version);
    throw Error(SAMDEPLOY_MANIFEST, where + ": version " + found + " found, an integer of at least 1 expected");
  }
  if (*version > kVersion) {
    throw Error(SAMDEPLOY_NEWER_VERSION, where + ": format version " + version->dump() +
                                             " found, this library reads up to " + std::to_string(kVersion) +
                                             "; install a newer one");
  }
}

// Refuses what development versions wrote: with `gate` in place of `options`, or without `crop`.
void refuse_old_format(const Json& root, const std::string& where) {
  const auto model = root.find("model"), preprocessing = root.find("preprocessing");
  if ((model != root.end() && model->contains("gate")) ||
      (preprocessing != root.end() && preprocessing->is_object() && !preprocessing->contains("crop"))) {
    throw Error(SAMDEPLOY_MANIFEST,
                where + ": a development version wrote it; make it again from its run: samdeploy export RUN");
  }
}

Preprocessing read_preprocessing(const Json& json, Problems* problems) {
  Fields fields(json, "preprocessing");
  Preprocessing value;
  value.height = fields.integer("height");
  value.width = fields.integer("width");
  const std::string fit = fields.text("fit");
  value.resize_short = fields.integer_or("resize_short", 0);
  const bool has_short = json.contains("resize_short") && !json.at("resize_short").is_null();
  const std::string crop = fields.text("crop"), resize = fields.text("resize");
  fields.numbers("mean", 3);
  const std::vector<double> std = fields.numbers("std", 3);
  const std::size_t before = problems->count();
  fields.close(problems);
  if (problems->count() != before) return value;

  const auto report = [problems](const std::string& text) { problems->add("preprocessing: " + text); };
  const std::int64_t longest = std::max({value.height, value.width, value.resize_short});
  if (value.height < 1 || value.width < 1 || longest > kLongestSide) {
    report("size " + std::to_string(value.height) + "x" + std::to_string(value.width) +
           " found, every side must be from 1 to " + std::to_string(kLongestSide));
  }
  check_name("preprocessing: fit", fit, kFits, problems);
  check_name("preprocessing: crop", crop, kCrops, problems);
  check_name("preprocessing: resize", resize, kResizes, problems);
  value.filter = resize == kResizes[0] ? Filter::bilinear : Filter::bicubic;
  value.is_half_even = crop == "half-even";
  if ((fit == "center_crop") != has_short) {
    report("resize_short belongs to fit 'center_crop' and to no other");
  } else if (has_short && value.resize_short < std::max(value.height, value.width)) {
    report("resize_short " + std::to_string(value.resize_short) + " is smaller than the crop");
  }
  if (*std::min_element(std.begin(), std.end()) <= 0.0) report("every value of std must be above 0");
  return value;
}

BundleFile read_file(const Json& json, const std::string& where, Problems* problems) {
  Fields fields(json, where);
  BundleFile file;
  file.role = fields.text("role");
  file.path = fields.text("path");
  file.sha256 = fields.text("sha256");
  file.bytes = fields.integer("bytes");
  file.backend = fields.text_or_null("backend");
  file.precision = fields.text_or_null("precision");
  fields.map_of("built_for", {&Json::is_string}, "texts");
  const std::size_t before = problems->count();
  fields.close(problems);
  if (problems->count() != before) return file;
  file.built_for = json.at("built_for").get<std::map<std::string, std::string>>();
  check_name(where + ": role", file.role, kRoles, problems);
  if (file.precision) check_name(where + ": precision", *file.precision, kPrecisions, problems);
  if (!is_sha256(file.sha256)) {
    problems->add(where + ": sha256 '" + file.sha256.substr(0, 60) +
                  "' found, 64 lower-case hexadecimal digits expected");
  }
  return file;
}

// "image uint8 [N, 32, 32, 3]": one line for a tensor, to compare and to show.
std::string read_tensor(const Json& json, const std::string& where, Problems* problems) {
  Fields fields(json, where);
  std::string text = fields.text("name") + " " + fields.text("dtype") + " [";
  bool first = true;
  for (const Json& axis : fields.items("shape")) {
    if (!axis.is_string() && !axis.is_number_integer()) {
      fields.report("numbers and names expected in 'shape', " + shown(axis) + " found");
    }
    text += first ? "" : ", ";
    text += axis.is_string() ? axis.get_ref<const std::string&>().substr(0, 60) : axis.is_number() ? axis.dump() : "?";
    first = false;
  }
  fields.close(problems);
  return text + "]";
}

void read_data(const Json& json, Problems* problems) {
  Fields fields(json, "data");
  fields.text("name");
  fields.map_of("options", kScalar, kScalarNames);
  fields.number("val_fraction");
  fields.integer("split_seed");
  fields.map_of("counts", {&Json::is_number_integer}, "integers");
  fields.map_of("fingerprints", {&Json::is_string}, "texts");
  fields.close(problems);
}

// Nothing here is used: a reader that runs graphs only refuses what is not as the page says.
void read_measured_split(const Json& json, const std::string& where, Problems* problems) {
  Fields fields(json, where);
  const double top1 = fields.number("top1");
  if (!(top1 >= 0.0 && top1 <= 100.0)) fields.report("top1 must be from 0 to 100");
  fields.integer("images");
  check_sha256("images_sha256", fields.text("images_sha256"), &fields);
  check_sha256("labelled_sha256", fields.text("labelled_sha256"), &fields);
  fields.close(problems);
}

void read_measured(const Json& json, Problems* problems) {
  Fields fields(json, "measured");
  check_sha256("model_sha256", fields.text("model_sha256"), &fields);
  check_sha256("weights_sha256", fields.text("weights_sha256"), &fields);
  fields.integer("epoch");
  const Json* val = nullptr;
  const Json* test = nullptr;
  if (!fields.is_null("val")) val = &fields.section("val");
  if (!fields.is_null("test")) test = &fields.section("test");
  fields.close(problems);
  if (val) read_measured_split(*val, "val", problems);
  if (test) read_measured_split(*test, "test", problems);
}

// A number of `fields` that lies where `is_sound` says; `expected` in words.
template <typename IsSound>
double read_limited(Fields& fields, const std::string& key, const IsSound& is_sound, const std::string& expected) {
  const std::size_t before = fields.problems();
  const double value = fields.number(key);
  if (fields.problems() == before && !is_sound(value)) fields.report(key + " must be " + expected);
  return value;
}

double read_percent(Fields& fields, const std::string& key) {
  return read_limited(fields, key, [](double v) { return v >= 0.0 && v <= 100.0; }, "from 0 to 100");
}

void read_images(Fields& fields) {
  const std::size_t before = fields.problems();
  if (fields.integer("images") < 1 && fields.problems() == before) fields.report("images must be at least 1");
}

// Returns the temperature.
double read_calibration(const Json& json, Problems* problems) {
  Fields fields(json, "calibration");
  const auto is_above_0 = [](double value) { return value > 0.0; };
  const auto is_from_0 = [](double value) { return value >= 0.0; };
  const double temperature = read_limited(fields, "temperature", is_above_0, "above 0");
  read_images(fields);
  for (const char* key : {"nll_before", "nll_after"}) read_limited(fields, key, is_from_0, "at least 0");
  for (const char* key : {"ece_before", "ece_after"}) read_percent(fields, key);
  fields.close(problems);
  return temperature;
}

// Returns the threshold.
double read_rejection(const Json& json, Problems* problems) {
  Fields fields(json, "rejection");
  const auto is_share = [](double value) { return value >= 0.0 && value <= 1.0; };
  const auto is_inside = [](double value) { return value > 0.0 && value < 100.0; };
  const double threshold = read_limited(fields, "threshold", is_share, "from 0 to 1");
  read_limited(fields, "wanted_error", is_inside, "above 0 and below 100");
  for (const char* key : {"bound", "coverage"}) read_percent(fields, key);
  read_images(fields);
  fields.close(problems);
  return threshold;
}

// The sum of a list of counts.
double read_counts(Fields& fields, const std::string& key, std::size_t length) {
  const Json& list = fields.items(key);
  const auto is_count = [](const Json& item) { return item.is_number_integer() && item.get<double>() >= 0.0; };
  if (list.size() != length || !std::all_of(list.begin(), list.end(), is_count)) {
    fields.report("'" + key + "' must be a list of " + std::to_string(length) + " integers from 0");
    return 0.0;
  }
  return std::accumulate(list.begin(), list.end(), 0.0,
                         [](double sum, const Json& item) { return sum + item.get<double>(); });
}

// Nothing here is used, as in `read_measured`.
void read_answered(const Json& json, std::size_t classes, Problems* problems) {
  Fields fields(json, "answered");
  const double labels = read_counts(fields, "labels", classes);
  const double confidence = read_counts(fields, "confidence", 10);
  if (fields.problems() == 0 && !(labels == confidence && labels > 0.0)) {
    fields.report("labels and confidence must be of the same number of images, above 0");
  }
  fields.close(problems);
}

void check_tensor(const std::string& key, const std::string& found, const std::string& wanted,
                  const std::string& where) {
  if (found != wanted) {
    throw Error(SAMDEPLOY_MANIFEST, where + ": " + key + " " + found.substr(0, 200) +
                                        " found, the preprocessing and the classes ask for " + wanted);
  }
}

}  // namespace

Manifest parse_manifest(std::string_view content, const std::string& where) {
  const Json root = parse_json(content, where);
  check_format(root, where);
  refuse_old_format(root, where);
  Problems problems;
  Manifest manifest;

  Fields fields(root, "");
  fields.text("format"), fields.integer("version");
  const Json& model_json = fields.section("model");
  const Json &input_json = fields.section("input"), &output_json = fields.section("output");
  const Json& preprocessing_json = fields.section("preprocessing");
  const Json& files_json = fields.items("files");
  if (files_json.size() > kMostFiles) {
    throw Error(SAMDEPLOY_MANIFEST, where + ": 'files' has " + std::to_string(files_json.size()) +
                                        " entries, at most " + std::to_string(kMostFiles) + " are read");
  }
  const Json& data_json = fields.section("data");
  fields.map_of("provenance", {&Json::is_string}, "texts");
  const auto optional = [&](const char* key) { return root.contains(key) ? &fields.section(key) : nullptr; };
  const Json *measured_json = optional("measured"), *calibration_json = optional("calibration"),
             *rejection_json = optional("rejection"), *answered_json = optional("answered");
  fields.close(&problems);

  Fields model(model_json, "model");
  manifest.arch = model.text("arch");
  model.map_of("options", kScalar, kScalarNames);
  manifest.classes = model.texts("classes");
  model.text_or_null("license");
  for (const std::string& name : manifest.classes) {
    if (name.find('\0') != std::string::npos) model.report("a class's name holds U+0000, which C cannot show");
  }
  model.close(&problems);
  const std::string input = read_tensor(input_json, "input", &problems);
  const std::string output = read_tensor(output_json, "output", &problems);
  manifest.preprocessing = read_preprocessing(preprocessing_json, &problems);
  for (std::size_t i = 0; i < files_json.size(); ++i) {
    const std::string name = "files[" + std::to_string(i) + "]";
    if (!files_json[i].is_object()) problems.add(name + " must be an object");
    else if (BundleFile file = read_file(files_json[i], name, &problems); problems.count() == 0) {
      manifest.files.push_back(std::move(file));
    }
  }
  read_data(data_json, &problems);
  if (measured_json) read_measured(*measured_json, &problems);
  if (calibration_json) manifest.temperature = read_calibration(*calibration_json, &problems);
  if (rejection_json) manifest.threshold = read_rejection(*rejection_json, &problems);
  if (answered_json) read_answered(*answered_json, manifest.classes.size(), &problems);
  if (problems.count() != 0) throw Error(SAMDEPLOY_MANIFEST, where + ": " + problems.text());

  std::set<std::string> paths;
  for (const BundleFile& file : manifest.files) {
    if (!paths.insert(file.path).second) {
      throw Error(SAMDEPLOY_MANIFEST, where + ": 'files' names '" + file.path.substr(0, 60) + "' twice");
    }
  }
  if (manifest.classes.empty()) {
    throw Error(SAMDEPLOY_MANIFEST, where + ": model: no classes found, at least one expected");
  }
  const std::string height = std::to_string(manifest.preprocessing.height);
  const std::string width = std::to_string(manifest.preprocessing.width);
  check_tensor("input", input, "image uint8 [N, " + height + ", " + width + ", 3]", where);
  check_tensor("output", output, "logits float32 [N, " + std::to_string(manifest.classes.size()) + "]", where);
  return manifest;
}

}  // namespace samdeploy::core

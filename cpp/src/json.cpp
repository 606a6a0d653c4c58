#include "json.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace samdeploy::core {
namespace {

// Refuses what nlohmann's own tree would take: it keeps the last of repeated keys, nests without a limit and turns an
// integer that is too large into a floating-point number.
class Checker final : public nlohmann::json_sax<Json> {
 public:
  std::string problem;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t value) override {
    return value <= static_cast<number_unsigned_t>(INT64_MAX) || fail("an integer does not fit 64 bits");
  }
  bool number_float(number_float_t, const string_t& text) override {
    return text.find_first_of(".eE") != string_t::npos || fail("an integer does not fit 64 bits");
  }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return keys_.pop_back(), true; }
  bool end_array() override { return keys_.pop_back(), true; }
  bool key(string_t& value) override {
    return keys_.back().insert(value).second || fail("key '" + value.substr(0, 60) + "' stands twice");
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("at byte " + std::to_string(position));
  }

 private:
  bool fail(const std::string& text) {
    problem = text;
    return false;
  }
  bool open() {
    if (keys_.size() >= kDeepestJson) return fail("nested deeper than " + std::to_string(kDeepestJson));
    keys_.emplace_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // of each object and list that is open
};

const Json kNothing;

}  // namespace

std::string shown(const Json& value) {
  if (value.is_string()) return "text '" + value.get_ref<const std::string&>().substr(0, 60) + "'";
  if (value.is_number_integer()) return "integer " + value.dump();
  if (value.is_number()) return "number " + value.dump();
  if (value.is_boolean()) return "boolean " + value.dump();
  return value.is_array() ? "list" : value.type_name();
}

std::string Problems::text() const {
  std::string text;
  for (const std::string& each : first_) text += (text.empty() ? "" : "; ") + each;
  if (count_ > first_.size()) text += "; and " + std::to_string(count_ - first_.size()) + " more";
  return text;
}

Json parse_json(std::string_view content, const std::string& where) {
  const std::string wrong = where + " is not valid JSON (";
  // nlohmann skips a byte order mark and takes a NUL for the end; JSON has neither.
  if (content.substr(0, 3) == "\xEF\xBB\xBF") throw Error(SAMDEPLOY_MANIFEST, wrong + "byte order mark)");
  if (content.find('\0') != std::string_view::npos) throw Error(SAMDEPLOY_MANIFEST, wrong + "NUL byte)");
  Checker checker;
  if (!Json::sax_parse(content.begin(), content.end(), &checker)) {
    throw Error(SAMDEPLOY_MANIFEST, wrong + checker.problem + ")");
  }
  Json root = Json::parse(content.begin(), content.end());
  if (!root.is_object()) {
    throw Error(SAMDEPLOY_MANIFEST, where + " holds a " + shown(root) + ", an object was expected");
  }
  return root;
}

Fields::Fields(const Json& value, std::string where) : value_(value), where_(std::move(where)) {}

const Json* Fields::get(const std::string& key, IsType is_type, const std::string& name) {
  asked_.push_back(key);
  const auto at = value_.find(key);
  if (at == value_.end()) {
    report("'" + key + "' is missing");
    return nullptr;
  }
  if (!((*at).*is_type)()) {
    report("'" + key + "' must be " + name + ", " + shown(*at) + " found");
    return nullptr;
  }
  return &*at;
}

std::string Fields::text(const std::string& key) {
  const Json* found = get(key, &Json::is_string, "text");
  return found ? found->get<std::string>() : "";
}

bool Fields::is_null(const std::string& key) {
  const auto at = value_.find(key);
  if (at == value_.end() || !at->is_null()) return false;
  asked_.push_back(key);
  return true;
}

std::optional<std::string> Fields::text_or_null(const std::string& key) {
  if (is_null(key)) return std::nullopt;
  return text(key);
}

std::int64_t Fields::integer(const std::string& key) {
  const Json* found = get(key, &Json::is_number_integer, "an integer");
  return found ? found->get<std::int64_t>() : 0;
}

std::int64_t Fields::integer_or(const std::string& key, std::int64_t if_null) {
  return is_null(key) ? if_null : integer(key);
}

double Fields::number(const std::string& key) {
  const Json* found = get(key, &Json::is_number, "a number");
  return found ? found->get<double>() : 0.0;
}

std::vector<std::string> Fields::texts(const std::string& key) {
  std::vector<std::string> found;
  for (const Json& item : items(key)) {
    if (!item.is_string()) {
      report("'" + key + "' must be a list of texts");
      return {};
    }
    found.push_back(item.get<std::string>());
  }
  return found;
}

std::vector<double> Fields::numbers(const std::string& key, std::size_t length) {
  const std::size_t before = problems_.count();
  const Json& list = items(key);
  if (list.size() == length && std::all_of(list.begin(), list.end(), [](const Json& item) { return item.is_number(); })) {
    return list.get<std::vector<double>>();
  }
  if (problems_.count() == before) report("'" + key + "' must be a list of " + std::to_string(length) + " numbers");
  return std::vector<double>(length, 1.0);
}

const Json& Fields::items(const std::string& key) {
  const Json* found = get(key, &Json::is_array, "a list");
  return found ? *found : kNothing;
}

const Json& Fields::section(const std::string& key) {
  const Json* found = get(key, &Json::is_object, "an object");
  return found ? *found : kNothing;
}

void Fields::map_of(const std::string& key, const std::vector<IsType>& types, const std::string& names) {
  for (const auto& [inner, value] : section(key).items()) {
    const auto fits = [&value = value](IsType is_type) { return (value.*is_type)(); };
    if (std::any_of(types.begin(), types.end(), fits)) continue;
    report("'" + key + "' must map names to " + names + ", " + shown(value) + " found at '" + inner.substr(0, 60) + "'");
  }
}

void Fields::close(Problems* all) const {
  if (!value_.is_object()) return;
  const std::string prefix = where_.empty() ? "" : where_ + ": ";
  all->add(prefix, problems_);
  for (const auto& [key, value] : value_.items()) {
    if (std::find(asked_.begin(), asked_.end(), key) == asked_.end()) {
      all->add(prefix + "unknown key '" + key.substr(0, 60) + "'");
    }
  }
}

}  // namespace samdeploy::core

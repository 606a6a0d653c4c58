#include "json.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

namespace samdeploy::core {
namespace {

// Builds `Json` from nlohmann's events: its own tree would keep the last of repeated keys and lose how an integer
// that is too large was written.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Json root;
  std::string problem;

  bool null() override { return put({}); }
  bool boolean(bool value) override { return put(Json(value)); }
  bool number_integer(number_integer_t value) override { return put(Json(std::int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<number_unsigned_t>(INT64_MAX)) return fail("an integer does not fit 64 bits");
    return number_integer(static_cast<number_integer_t>(value));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == string_t::npos) return fail("an integer does not fit 64 bits");
    if (!std::isfinite(value)) return fail("a number is too large");
    return put(Json(value));
  }
  bool string(string_t& value) override {
    return put(Json(std::move(value)));
  }
  bool binary(binary_t&) override { return fail("binary value"); }
  bool start_object(std::size_t) override { return open(Json::Kind::object); }
  bool start_array(std::size_t) override { return open(Json::Kind::list); }
  bool end_object() override { return open_.pop_back(), true; }
  bool end_array() override { return open_.pop_back(), true; }
  bool key(string_t& value) override {
    if (open_.back()->object().count(value) != 0) return fail("key '" + value.substr(0, 60) + "' stands twice");
    key_ = std::move(value);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    return fail("at byte " + std::to_string(position));
  }

 private:
  bool fail(const std::string& text) {
    problem = text;
    return false;
  }
  Json* place(Json&& value) {
    if (open_.empty()) return &(root = std::move(value));
    Json* parent = open_.back();
    if (parent->kind() == Json::Kind::object) return &parent->insert(std::move(key_), std::move(value));
    return &parent->append(std::move(value));
  }
  bool put(Json&& value) { return place(std::move(value)), true; }
  bool open(Json::Kind kind) {
    if (open_.size() >= kDeepestJson) return fail("nested deeper than " + std::to_string(kDeepestJson));
    // Pointers stay valid: a list grows only when its last element, the only one that is open, is closed.
    open_.push_back(place(Json::empty(kind)));
    return true;
  }

  std::vector<Json*> open_;
  std::string key_;
};

const char* name_of(Json::Kind kind) {
  switch (kind) {
    case Json::Kind::null: return "null";
    case Json::Kind::boolean: return "boolean";
    case Json::Kind::integer: return "integer";
    case Json::Kind::number: return "number";
    case Json::Kind::text: return "text";
    case Json::Kind::list: return "list";
    case Json::Kind::object: return "object";
  }
  return "value";
}

const Json kNothing;

}  // namespace

Json Json::empty(Kind kind) {
  Json made;
  if (kind == Kind::list) made.value_ = std::unique_ptr<List>();
  if (kind == Kind::object) made.value_ = std::unique_ptr<Object>();
  return made;
}

std::int64_t Json::integer() const { return kind() == Kind::integer ? std::get<std::int64_t>(value_) : 0; }

double Json::number() const {
  return kind() == Kind::number ? std::get<double>(value_) : static_cast<double>(integer());
}

namespace {
template <typename Content, typename Value>
const Content& content_of(const Value& value) {
  static const Content none;
  const auto* found = std::get_if<std::unique_ptr<Content>>(&value);
  return found == nullptr || *found == nullptr ? none : **found;
}
}  // namespace

const std::string& Json::text() const { return content_of<std::string>(value_); }
const Json::List& Json::list() const { return content_of<List>(value_); }
const Json::Object& Json::object() const { return content_of<Object>(value_); }

Json& Json::append(Json&& value) {
  auto& list = std::get<std::unique_ptr<List>>(value_);
  if (list == nullptr) list = std::make_unique<List>();
  return list->emplace_back(std::move(value));
}

Json& Json::insert(std::string&& key, Json&& value) {
  auto& object = std::get<std::unique_ptr<Object>>(value_);
  if (object == nullptr) object = std::make_unique<Object>();
  return (*object)[std::move(key)] = std::move(value);
}

std::string Json::found() const {
  switch (kind()) {
    case Kind::text: return "text '" + text().substr(0, 60) + "'";
    case Kind::integer: return "integer " + std::to_string(integer());
    case Kind::number: return "number " + std::to_string(number());
    case Kind::boolean: return std::get<bool>(value_) ? "boolean true" : "boolean false";
    default: return name_of(kind());
  }
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
  Builder builder;
  if (!nlohmann::json::sax_parse(content.begin(), content.end(), &builder)) {
    throw Error(SAMDEPLOY_MANIFEST, wrong + builder.problem + ")");
  }
  if (builder.root.kind() != Json::Kind::object) {
    throw Error(SAMDEPLOY_MANIFEST, where + " holds a " + builder.root.found() + ", an object was expected");
  }
  return std::move(builder.root);
}

Fields::Fields(const Json& value, std::string where) : value_(value), where_(std::move(where)) {}

const Json* Fields::get(const std::string& key, Json::Kind kind, const std::string& name) {
  asked_.push_back(key);
  const auto at = value_.object().find(key);
  if (at == value_.object().end()) {
    report("'" + key + "' is missing");
    return nullptr;
  }
  const bool integer_as_number = kind == Json::Kind::number && at->second.kind() == Json::Kind::integer;
  if (at->second.kind() != kind && !integer_as_number) {
    report("'" + key + "' must be " + name + ", " + at->second.found() + " found");
    return nullptr;
  }
  return &at->second;
}

std::string Fields::text(const std::string& key) {
  const Json* found = get(key, Json::Kind::text, "text");
  return found ? found->text() : "";
}

bool Fields::is_null(const std::string& key) {
  const auto at = value_.object().find(key);
  if (at == value_.object().end() || at->second.kind() != Json::Kind::null) return false;
  asked_.push_back(key);
  return true;
}

std::optional<std::string> Fields::text_or_null(const std::string& key) {
  if (is_null(key)) return std::nullopt;
  return text(key);
}

std::int64_t Fields::integer(const std::string& key) {
  const Json* found = get(key, Json::Kind::integer, "an integer");
  return found ? found->integer() : 0;
}

std::int64_t Fields::integer_or(const std::string& key, std::int64_t if_null) {
  return is_null(key) ? if_null : integer(key);
}

double Fields::number(const std::string& key) {
  const Json* found = get(key, Json::Kind::number, "a number");
  return found ? found->number() : 0.0;
}

std::vector<std::string> Fields::texts(const std::string& key) {
  std::vector<std::string> found;
  for (const Json& item : items(key)) {
    if (item.kind() != Json::Kind::text) {
      report("'" + key + "' must be a list of texts");
      return {};
    }
    found.push_back(item.text());
  }
  return found;
}

std::vector<double> Fields::numbers(const std::string& key, std::size_t length) {
  const std::size_t before = problems_.count();
  std::vector<double> found;
  bool fits = true;
  for (const Json& item : items(key)) {
    fits = fits && (item.kind() == Json::Kind::integer || item.kind() == Json::Kind::number);
    found.push_back(item.number());
  }
  if (fits && found.size() == length) return found;
  if (problems_.count() == before) report("'" + key + "' must be a list of " + std::to_string(length) + " numbers");
  return std::vector<double>(length, 1.0);
}

const Json::List& Fields::items(const std::string& key) {
  const Json* found = get(key, Json::Kind::list, "a list");
  return found ? found->list() : kNothing.list();
}

const Json& Fields::section(const std::string& key) {
  const Json* found = get(key, Json::Kind::object, "an object");
  return found ? *found : kNothing;
}

void Fields::map_of(const std::string& key, const std::vector<Json::Kind>& kinds, const std::string& name) {
  for (const auto& [inner, value] : section(key).object()) {
    if (std::find(kinds.begin(), kinds.end(), value.kind()) == kinds.end()) {
      report("'" + key + "' must map names to " + name + ", " + value.found() + " found at '" + inner.substr(0, 60) +
             "'");
    }
  }
}

void Fields::close(Problems* all) const {
  if (value_.kind() != Json::Kind::object) return;
  const std::string prefix = where_.empty() ? "" : where_ + ": ";
  all->add(prefix, problems_);
  for (const auto& [key, value] : value_.object()) {
    if (std::find(asked_.begin(), asked_.end(), key) == asked_.end()) {
      all->add(prefix + "unknown key '" + key.substr(0, 60) + "'");
    }
  }
}

}  // namespace samdeploy::core

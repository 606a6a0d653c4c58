// JSON as every language reads it alike: UTF-8, no repeated keys, finite numbers, integers of 64 bits.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "error.hpp"

namespace samdeploy::core {

// One value, in 16 bytes and what a text, list or object holds: a hostile manifest is a list of millions.
class Json {
 public:
  enum class Kind { null, boolean, integer, number, text, list, object };
  using List = std::vector<Json>;
  using Object = std::map<std::string, Json>;

  Json() = default;
  template <typename Plain>
  explicit Json(Plain value) : value_(value) {}
  explicit Json(std::string&& text) : value_(std::make_unique<std::string>(std::move(text))) {}
  static Json empty(Kind kind);

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  // 0, or empty, where the value is of another kind; an integer is a number, too.
  std::int64_t integer() const;
  double number() const;
  const std::string& text() const;
  const List& list() const;
  const Object& object() const;
  // Only of a list, or an object.
  Json& append(Json&& value);
  Json& insert(std::string&& key, Json&& value);

  // "text 'abc'", for messages; long values are cut.
  std::string found() const;

 private:
  // In the order of Kind; the pointers of empty lists and objects are null.
  std::variant<std::monostate, bool, std::int64_t, double, std::unique_ptr<std::string>, std::unique_ptr<List>,
               std::unique_ptr<Object>>
      value_;
};

// What is wrong with a manifest: the first faults, and how many there are.
class Problems {
 public:
  void add(const std::string& text) {
    if (first_.size() < kMost) first_.push_back(text);
    ++count_;
  }
  void add(const std::string& prefix, const Problems& others) {
    for (const std::string& text : others.first_) add(prefix + text);
    count_ += others.count_ - others.first_.size();
  }
  std::size_t count() const { return count_; }
  // "a; b; and 7 more"
  std::string text() const;

 private:
  static constexpr std::size_t kMost = 20;  // nobody reads more

  std::vector<std::string> first_;
  std::size_t count_ = 0;
};

constexpr std::size_t kMostJsonBytes = std::size_t{4} << 20;
constexpr std::size_t kDeepestJson = 32;

// Throws MANIFEST: no JSON, no object, a key that stands twice, nested deeper than kDeepestJson, a number that is not
// finite or an integer that does not fit 64 bits.  `where` names the file in messages.
Json parse_json(std::string_view content, const std::string& where);

// One object, read key by key and then closed; everything that is wrong with it is told at once.
class Fields {
 public:
  Fields(const Json& value, std::string where);

  std::string text(const std::string& key);
  std::optional<std::string> text_or_null(const std::string& key);
  // Whether `key` is there and null; it then counts as asked for.
  bool is_null(const std::string& key);
  std::int64_t integer(const std::string& key);
  std::int64_t integer_or(const std::string& key, std::int64_t if_null);
  double number(const std::string& key);
  std::vector<std::string> texts(const std::string& key);
  std::vector<double> numbers(const std::string& key, std::size_t length);
  const Json::List& items(const std::string& key);
  const Json& section(const std::string& key);
  // Every value under `key` must be of one of `kinds`.
  void map_of(const std::string& key, const std::vector<Json::Kind>& kinds, const std::string& name);
  void report(const std::string& problem) { problems_.add(problem); }

  // Adds the problems found, and the keys that nobody asked for, to `all`; nothing for what is no object, since that
  // was told where it was asked for.
  void close(Problems* all) const;

 private:
  const Json* get(const std::string& key, Json::Kind kind, const std::string& name);

  const Json& value_;
  std::string where_;
  std::vector<std::string> asked_;
  Problems problems_;
};

}  // namespace samdeploy::core

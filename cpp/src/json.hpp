// JSON as every language reads it alike: UTF-8, no repeated keys, finite numbers, integers of 64 bits.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"

namespace samdeploy::core {

using Json = nlohmann::json;
// Asks a value for its type: `&Json::is_string` and the like.
using IsType = bool (Json::*)() const noexcept;

// What is wrong with a manifest: the first problems, and how many there are.
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

// Throws MANIFEST: not JSON, not an object, a repeated key, nested deeper than kDeepestJson, a number that is not
// finite or an integer that does not fit 64 bits.  `where` names the file in messages.
Json parse_json(std::string_view content, const std::string& where);

// "text 'abc'", for messages; long values are cut.
std::string shown(const Json& value);

// One object, read key by key and then closed; everything that is wrong with it is reported at once.
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
  // Null where `key` is missing or of another type; then `Fields` of it has nothing to report.
  const Json& items(const std::string& key);
  const Json& section(const std::string& key);
  // Every value under `key` must be of one of `types`, which `names` tells.
  void map_of(const std::string& key, const std::vector<IsType>& types, const std::string& names);
  void report(const std::string& problem) { problems_.add(problem); }
  std::size_t problems() const { return problems_.count(); }

  // Adds the problems found, and the keys that nobody asked for, to `all`; nothing where the value is no object, which
  // was reported where it was asked for.
  void close(Problems* all) const;

 private:
  const Json* get(const std::string& key, IsType is_type, const std::string& name);

  const Json& value_;
  std::string where_;
  std::vector<std::string> asked_;
  Problems problems_;
};

}  // namespace samdeploy::core

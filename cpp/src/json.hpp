// JSON as every language reads it alike: UTF-8, no repeated keys, finite numbers, integers of 64 bits.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "error.hpp"

namespace samdeploy::core {

// One value.  Which members are meaningful follows from `kind`.
struct Json {
  enum class Kind { null, boolean, integer, number, text, list, object };

  Kind kind = Kind::null;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0.0;
  std::string text;
  std::vector<Json> list;
  std::map<std::string, Json> object;

  // "text 'abc'", for messages; long values are cut.
  std::string found() const;
};

constexpr std::size_t kMostJsonBytes = std::size_t{16} << 20;
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
  const std::vector<Json>& items(const std::string& key);
  const Json& section(const std::string& key);
  // Every value under `key` must be of one of `kinds`.
  void map_of(const std::string& key, const std::vector<Json::Kind>& kinds, const std::string& name);
  void report(const std::string& problem) { problems_.push_back(problem); }

  // Adds the problems found, and the keys that nobody asked for, to `all`; nothing for what is no object, since that
  // was told where it was asked for.
  void close(std::vector<std::string>* all) const;

 private:
  const Json* get(const std::string& key, Json::Kind kind, const std::string& name);

  const Json& value_;
  std::string where_;
  std::vector<std::string> asked_;
  std::vector<std::string> problems_;
};

}  // namespace samdeploy::core

// manifest.json as data; docs/bundle.md says what every field means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace samdeploy::core {

struct Preprocessing {
  std::int64_t height = 0;        // of the model's input, in pixels
  std::int64_t width = 0;
  std::int64_t resize_short = 0;  // 0: "squeeze"; else the shorter side before the crop
};

struct BundleFile {
  std::string role;
  std::string path;       // relative, forward slashes
  std::string sha256;     // lower-case hexadecimal
  std::int64_t bytes = 0;
  std::optional<std::string> backend;    // the only one that may open it; none: any
  std::optional<std::string> precision;  // of the arithmetic, for graphs and engines
};

struct Manifest {
  std::string arch;
  std::vector<std::string> classes;  // the index is the logit's column
  Preprocessing preprocessing;
  std::vector<BundleFile> files;
};

// A model takes no larger pictures, on either side; keeps every product of sizes within 64 bits.
constexpr std::int64_t kLongestSide = 65536;

// Throws MANIFEST: another format; unknown, missing, repeated or mistyped keys; tensors that do not fit classes and
// preprocessing.  NEWER_VERSION: before anything else is looked at.
Manifest parse_manifest(std::string_view content, const std::string& where);

}  // namespace samdeploy::core

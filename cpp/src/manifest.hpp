// manifest.json as data; docs/bundle.md says what every field means.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace samdeploy::core {

enum class Filter { bilinear, bicubic };

struct Preprocessing {
  std::int64_t height = 0;        // of the model's input, in pixels
  std::int64_t width = 0;
  std::int64_t resize_short = 0;  // 0: "squeeze"; else the shorter side before the crop
  Filter filter = Filter::bilinear;
  bool is_half_even = false;      // how half of the crop's margin is rounded; else down
};

struct BundleFile {
  std::string role;
  std::string path;       // relative, forward slashes
  std::string sha256;     // lower-case hexadecimal
  std::int64_t bytes = 0;
  std::optional<std::string> backend;    // the only one that may open it; none: any
  std::optional<std::string> precision;  // of the arithmetic, for graphs and engines
  std::map<std::string, std::string> built_for;  // what an engine depends on; DESIGN.md has its keys
};

struct Manifest {
  std::string arch;
  std::vector<std::string> classes;  // the index is the logit's column
  Preprocessing preprocessing;
  std::vector<BundleFile> files;
  double temperature = 1.0;  // logits are divided by it before the softmax
  double threshold = 0.0;    // an answer of a lower probability is rejected
};

// The first file of `role` and `precision` that `backend` may open, one made for it before one made for all; null
// where there is none.
inline const BundleFile* find_file(const Manifest& manifest, const std::string& role, const std::string& backend,
                                   const std::string& precision) {
  const BundleFile* for_all = nullptr;
  for (const BundleFile& file : manifest.files) {
    if (file.role != role || file.precision != precision) continue;
    if (file.backend && *file.backend == backend) return &file;
    if (!file.backend && !for_all) for_all = &file;
  }
  return for_all;
}

// A model takes no larger images, on either side; keeps every product of sizes within 64 bits.
constexpr std::int64_t kLongestSide = 65536;

// Throws MANIFEST: another format; unknown, missing, repeated or mistyped keys; tensors that do not fit classes and
// preprocessing.  NEWER_VERSION: before anything else is looked at.
Manifest parse_manifest(std::string_view content, const std::string& where);

}  // namespace samdeploy::core

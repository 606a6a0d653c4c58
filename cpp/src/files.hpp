// Reading files that a hostile author may have arranged: no path leaves the folder, no link is followed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "image.hpp"

namespace samdeploy::core {

using Bytes = std::vector<std::uint8_t>;

// An open folder; files are reached from its descriptor, so that nobody can swap it for another one meanwhile.
class Folder {
 public:
  // Throws NO_BUNDLE: no such folder.
  explicit Folder(const std::string& path);
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  const std::string& path() const { return path_; }

  // Throws UNSAFE_PATH or NO_BUNDLE unless `relative` is a plain file in here that no link leads to or through.
  void check(const std::string& relative) const;

  // The content of `relative`, at most `limit` bytes.
  // Throws as `check` does; CHANGED: it has another length than `expected` (negative: any).
  Bytes read(const std::string& relative, std::int64_t expected, std::uint64_t limit) const;

 private:
  int open_file(const std::string& relative, std::uint64_t* size) const;

  std::string path_;
  int descriptor_;
};

// An image's file, wherever it is.  Its first bytes and its length are looked at before the rest is read.
// Throws IMAGE: missing, unreadable, no plain file, or of a format that is not read.  IMAGE_TOO_LARGE.
void read_image(const char* path, const ImageLimits& limits, Buffer* content);

}  // namespace samdeploy::core

// An opened bundle: a checked manifest; files are read, and verified, one by one.
#pragma once

#include <string>
#include <vector>

#include "files.hpp"
#include "manifest.hpp"

namespace samdeploy::core {

// The images and answers a bundle tests itself with.
struct Golden {
  std::uint64_t count = 0;
  Bytes images;               // uint8 [count, H, W, 3], RGB
  std::vector<float> logits;  // [count, K], of the model as trained
};

class Bundle {
 public:
  // Reads the manifest and checks the paths of all files in it.
  // Throws NO_BUNDLE, UNSAFE_PATH, MANIFEST or NEWER_VERSION.
  explicit Bundle(const std::string& path);

  const Manifest& manifest() const { return manifest_; }
  const std::string& path() const { return folder_.path(); }

  // The content, after containment, length and SHA-256 were checked.  Throws UNSAFE_PATH, NO_BUNDLE or CHANGED.
  Bytes read(const BundleFile& file) const;

  // Throws ARRAY, or as `read` does.
  Golden golden() const;

 private:
  Folder folder_;
  Manifest manifest_;
};

}  // namespace samdeploy::core

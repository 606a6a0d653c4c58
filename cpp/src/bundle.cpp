#include "bundle.hpp"

#include <openssl/evp.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "error.hpp"
#include "json.hpp"
#include "npy.hpp"

namespace samdeploy::core {
namespace {

constexpr const char* kManifest = "manifest.json";

// A run was named, whose bundle lies one folder deeper: say so, in the words of Python's open_bundle.
void refuse_run(const std::string& path) {
  const auto below = [&](const char* name) { return (std::filesystem::path(path) / name).string(); };
  const auto missing = [&](const char* name) { return ::access(below(name).c_str(), F_OK) != 0; };
  if (!missing(kManifest)) return;
  if (!missing("bundle/manifest.json")) {
    throw Error(SAMDEPLOY_NO_BUNDLE, "bundle " + path + ": is a run; its bundle is " + below("bundle"));
  }
  if (!missing("run.json")) {
    throw Error(SAMDEPLOY_NO_BUNDLE,
                "bundle " + path + ": is a run that has no bundle yet; make it: samdeploy export " + path);
  }
}

Manifest read_manifest(const Folder& folder) {
  refuse_run(folder.path());
  const Bytes content = folder.read(kManifest, -1, kMostJsonBytes);
  const std::string_view text(reinterpret_cast<const char*>(content.data()), content.size());
  return parse_manifest(text, "bundle " + folder.path() + ": " + kManifest);
}

std::string sha256(const Bytes& content) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  if (EVP_Digest(content.data(), content.size(), digest, &length, EVP_sha256(), nullptr) != 1) {
    throw Error(SAMDEPLOY_INTERNAL, "libcrypto computes no SHA-256");
  }
  std::string text;
  for (unsigned int i = 0; i < length; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4];
    text += "0123456789abcdef"[digest[i] & 15];
  }
  return text;
}

}  // namespace

Bundle::Bundle(const std::string& path) : folder_(path), manifest_(read_manifest(folder_)) {
  for (const BundleFile& file : manifest_.files) folder_.check(file.path);
}

Bytes Bundle::read(const BundleFile& file) const {
  // A negative length in the manifest fits no file.
  const std::int64_t expected = file.bytes < 0 ? INT64_MAX : file.bytes;
  Bytes content = folder_.read(file.path, expected, UINT64_MAX);
  const std::string digest = sha256(content);
  if (digest != file.sha256) {
    throw Error(SAMDEPLOY_CHANGED, "bundle " + path() + ": '" + file.path + "' has SHA-256 " + digest.substr(0, 12) +
                                       "..., the manifest states " + file.sha256.substr(0, 12) +
                                       "...; the file was changed; copy or export the bundle again");
  }
  return content;
}

Golden Bundle::golden() const {
  const Preprocessing& size = manifest_.preprocessing;
  const std::uint64_t height = static_cast<std::uint64_t>(size.height), width = static_cast<std::uint64_t>(size.width);
  const std::uint64_t classes = manifest_.classes.size();
  const auto array = [&](const char* role, const char* descr, std::uint64_t item_size,
                         const std::vector<std::uint64_t>& shape, std::uint64_t* count) {
    const BundleFile* file = nullptr;
    for (const BundleFile& each : manifest_.files) {
      if (each.role == role && !file) file = &each;
    }
    if (!file) {
      throw Error(SAMDEPLOY_ARRAY, "bundle " + path() + ": no file with role '" + role + "'; export it again");
    }
    Bytes content = read(*file);
    *count = check_npy(content, descr, item_size, shape, "bundle " + path() + ": '" + file->path + "'");
    return content;
  };

  Golden golden;
  std::uint64_t answers = 0;
  const Bytes images = array("golden_images", "|u1", 1, {height, width, 3}, &golden.count);
  const Bytes logits = array("golden_logits", "<f4", 4, {classes}, &answers);
  if (golden.count != answers || golden.count == 0) {
    throw Error(SAMDEPLOY_ARRAY, "bundle " + path() + ": " + std::to_string(golden.count) + " golden images, " +
                                     std::to_string(answers) + " golden answers found");
  }
  golden.images.assign(images.end() - static_cast<std::ptrdiff_t>(golden.count * height * width * 3), images.end());
  golden.logits.resize(golden.count * classes);
  std::memcpy(golden.logits.data(), logits.data() + logits.size() - golden.logits.size() * 4, golden.logits.size() * 4);
  for (const float value : golden.logits) {
    if (!std::isfinite(value)) {
      throw Error(SAMDEPLOY_ARRAY, "bundle " + path() + ": golden answers are not finite; export it again");
    }
  }
  return golden;
}

}  // namespace samdeploy::core

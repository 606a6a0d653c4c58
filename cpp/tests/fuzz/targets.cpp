// What is fuzzed: everything that reads bytes which someone else wrote.  A target may throw core::Error and nothing else;
// what the sanitizers find, and whatever else leaves it, is a defect.
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "bundle.hpp"
#include "error.hpp"
#include "npy.hpp"
#include "image.hpp"

namespace core = samdeploy::core;

namespace {

// Enough for an image that shows something, and so few that a run takes milliseconds.
constexpr std::uint64_t kMostPixels = 1 << 18;

// Touches every byte, so that one outside a buffer is seen.
void look_at(const std::uint8_t* bytes, std::size_t size) {
  static volatile std::uint8_t sum = 0;
  for (std::size_t i = 0; i < size; ++i) sum = static_cast<std::uint8_t>(sum + bytes[i]);
}

}  // namespace

void fuzz_manifest(const std::uint8_t* data, std::size_t size) {
  core::parse_manifest({reinterpret_cast<const char*>(data), size}, "fuzz");
}

namespace {
void decode(const std::uint8_t* data, std::size_t size,
            void (*decoder)(const std::uint8_t*, std::size_t, const core::ImageLimits&, core::Workspace&, core::Rows&)) {
  static core::Workspace space;
  core::ImageLimits limits;
  limits.pixels = kMostPixels;
  core::Preprocessing preprocessing;
  preprocessing.height = 9, preprocessing.width = 14, preprocessing.resize_short = size % 2 ? 0 : 17;
  preprocessing.filter = size / 2 % 2 ? core::Filter::bicubic : core::Filter::bilinear;
  preprocessing.is_half_even = size / 4 % 2;
  std::uint8_t out[9 * 14 * 3];
  core::Resize resize(preprocessing, out, space);
  decoder(data, size, limits, space, resize);
  look_at(out, sizeof out);
}

}  // namespace

void fuzz_jpeg(const std::uint8_t* data, std::size_t size) { decode(data, size, core::decode_jpeg); }
void fuzz_png(const std::uint8_t* data, std::size_t size) { decode(data, size, core::decode_png); }

// The first byte: how many of the others are EXIF; the rest is XMP.
void fuzz_orientation(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return;
  const std::string text(reinterpret_cast<const char*>(data + 1), size - 1);
  const std::size_t exif = std::min<std::size_t>(data[0], text.size());
  const std::string_view all = text;
  const int found = core::orientation(all.substr(0, exif), all.substr(exif));
  if (found < 1 || found > 8) std::abort();
}

void fuzz_npy(const std::uint8_t* data, std::size_t size) {
  const core::Bytes content(data, data + size);
  const std::uint64_t count = core::check_npy(content, "|u1", 1, {4, 5, 3}, "fuzz");
  if (count > size / 60) std::abort();  // more numbers than bytes
}

namespace {

std::string sha256(const std::string& content) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  EVP_Digest(content.data(), content.size(), digest, &length, EVP_sha256(), nullptr);
  std::string text;
  char two[3];
  for (unsigned int i = 0; i < length; ++i) std::snprintf(two, sizeof two, "%02x", digest[i]), text += two;
  return text;
}

void replace(std::string* text, const std::string& old, const std::string& with) {
  const std::size_t at = text->find(old);
  if (at != std::string::npos) text->replace(at, old.size(), with);
}

}  // namespace

// Reads one byte too far behind "samdeploy", so that a test can see that a defect is found.
void fuzz_canary(const std::uint8_t* data, std::size_t size) {
  if (size >= 9 && std::memcmp(data, "samdeploy", 9) == 0) look_at(data, size + 1);
}

namespace {
struct TemporaryFolder {
  std::string path = access("/dev/shm", W_OK) == 0 ? "/dev/shm/samdeploy-fuzz-XXXXXX" : "/tmp/samdeploy-fuzz-XXXXXX";
  TemporaryFolder() {
    if (mkdtemp(path.data()) == nullptr) std::abort();
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

}  // namespace

// Four parts, each behind its length in 3 bytes: manifest, golden images, golden answers, graph.  In the manifest
// "@1" stands for the first file's SHA-256 and "#1" for its length, so that what is behind those checks is reached.
void fuzz_bundle(const std::uint8_t* data, std::size_t size) {
  static const TemporaryFolder folder;
  const std::string& root = folder.path;
  static const char* const names[] = {"manifest.json", "images.npy", "logits.npy", "graph.onnx"};
  std::string parts[4];
  for (std::string& part : parts) {
    const std::size_t length = size < 3 ? 0 : data[0] | std::size_t{data[1]} << 8 | std::size_t{data[2]} << 16;
    if (size < 3) break;
    data += 3, size -= 3;
    part.assign(reinterpret_cast<const char*>(data), std::min(length, size));
    data += part.size(), size -= part.size();
  }
  for (int i = 1; i < 4; ++i) {
    replace(&parts[0], "@" + std::to_string(i), sha256(parts[i]));
    replace(&parts[0], "#" + std::to_string(i), std::to_string(parts[i].size()));
  }
  for (int i = 0; i < 4; ++i) std::ofstream(root + "/" + names[i], std::ios::binary) << parts[i];
  const core::Bundle bundle(root);
  const core::Golden golden = bundle.golden();
  look_at(golden.images.data(), golden.images.size());
  const core::BundleFile* file = core::find_file(bundle.manifest(), "graph", "openvino", "fp32");
  if (file != nullptr) look_at(bundle.read(*file).data(), 0);
}

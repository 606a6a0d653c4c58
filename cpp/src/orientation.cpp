// EXIF orientation (TIFF 6.0, tag 274), read as Pillow reads it: odd blocks around a sound image are skipped.
#include <array>
#include <string_view>

#include "image.hpp"

namespace samdeploy::core {
namespace {

constexpr std::uint32_t kOrientation = 274;
// Bytes of one value, by TIFF type; 0: unknown.
constexpr std::array<std::uint64_t, 17> kSizes = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};

class Tiff {
 public:
  explicit Tiff(std::string_view data) : data_(data) {}

  bool has_header() const {
    const std::string_view head = data_.substr(0, 4);
    using namespace std::string_view_literals;
    return data_.size() >= 8 && (head == "II*\0"sv || head == "MM\0*"sv || head == "II\0*"sv || head == "MM*\0"sv);
  }
  bool fits(std::uint64_t at, std::uint64_t size) const { return at <= data_.size() && size <= data_.size() - at; }
  std::uint64_t size() const { return data_.size(); }
  std::uint32_t number(std::uint64_t at, unsigned bytes) const {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < bytes; ++i) {
      const unsigned place = data_[0] == 'I' ? i : bytes - 1 - i;
      value |= static_cast<std::uint32_t>(static_cast<unsigned char>(data_[at + i])) << (8 * place);
    }
    return value;
  }

 private:
  std::string_view data_;
};

// -1: no orientation in there.
int from_directory(const Tiff& tiff) {
  const std::uint64_t start = tiff.number(4, 4);
  if (!tiff.fits(start, 2)) return -1;
  const std::uint32_t count = tiff.number(start, 2);
  std::uint64_t total = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint64_t entry = start + 2 + std::uint64_t{12} * i;
    if (!tiff.fits(entry, 12)) return -1;
    const std::uint32_t type = tiff.number(entry + 2, 2);
    if (type >= kSizes.size() || kSizes[type] == 0) continue;
    const std::uint64_t size = kSizes[type] * tiff.number(entry + 4, 4);
    std::uint64_t at = entry + 8;
    if (size > 4) {
      total += size;
      if (total > tiff.size()) continue;
      at = tiff.number(entry + 8, 4);
      if (!tiff.fits(at, size)) return -1;
    }
    if (tiff.number(entry, 2) != kOrientation || size == 0) continue;
    // Whole numbers only; of several values the first counts.
    if (type == 3 || type == 8) return static_cast<int>(tiff.number(at, 2));
    if (type == 4 || type == 9 || type == 13) return static_cast<int>(tiff.number(at, 4) & 0x7fffffff);
    if (type == 6) return static_cast<int>(tiff.number(at, 1));
    return 1;
  }
  return -1;
}

int from_xmp(std::string_view xmp) {
  // tiff:Orientation="6" or tiff:Orientation>6
  constexpr std::string_view key = "tiff:Orientation";
  for (std::size_t at = xmp.find(key); at != std::string_view::npos; at = xmp.find(key, at + 1)) {
    std::string_view rest = xmp.substr(at + key.size());
    if (rest.substr(0, 2) == "=\"") rest.remove_prefix(2);
    else if (rest.substr(0, 1) == ">") rest.remove_prefix(1);
    else continue;
    if (!rest.empty() && rest[0] >= '0' && rest[0] <= '9') return rest[0] - '0';
  }
  return 1;
}

}  // namespace

int orientation(std::string_view exif, std::string_view xmp) {
  int found = -1;
  if (exif.size() > kMostMetadata) exif = {};
  for (int i = 0; i < 2; ++i) {
    if (exif.substr(0, 6) == std::string_view("Exif\0\0", 6)) exif.remove_prefix(6);
  }
  const Tiff tiff(exif);
  if (!exif.empty() && !tiff.has_header()) return 1;
  if (!exif.empty()) found = from_directory(tiff);
  if (found < 0) found = from_xmp(xmp.size() > kMostMetadata ? std::string_view() : xmp);
  return found >= 1 && found <= 8 ? found : 1;
}

}  // namespace samdeploy::core

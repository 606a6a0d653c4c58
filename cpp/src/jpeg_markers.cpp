#include "jpeg_markers.hpp"

#include <algorithm>
#include <cstring>

namespace samdeploy::core {
namespace {

constexpr unsigned kMostMarkers = 1 << 16;
constexpr std::uint64_t kFewScans = 16, kMostScans = 100, kMostWork = std::uint64_t{1} << 31;
constexpr std::uint8_t kEoi = 0xD9, kSos = 0xDA, kApp1 = 0xE1;
constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);

bool is_restart(std::uint8_t marker) { return marker >= 0xD0 && marker <= 0xD7; }
bool is_frame(std::uint8_t m) { return m >= 0xC0 && m <= 0xCF && m != 0xC4 && m != 0xC8 && m != 0xCC; }
bool is_progressive(std::uint8_t frame) { return frame == 0xC2 || frame == 0xCA; }
// Tables, restart interval, number of lines, applications' segments and comments.
bool is_known(std::uint8_t m) {
  return m == 0xC4 || m == 0xCC || (m >= 0xDB && m <= 0xDD) || (m >= 0xE0 && m <= 0xEF) || m == 0xFE;
}

class Walk {
 public:
  Walk(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits)
      : encoded_(encoded), size_(size), limits_(limits) {}

  JpegMarkers follow() {
    std::size_t at = 2;
    for (unsigned count = 0; count < kMostMarkers; ++count) {
      at = find(at, false);
      const std::uint8_t marker = encoded_[at + 1];
      at += 2;
      if (marker == kEoi) {
        if (found_.scans == 0) damaged("JPEG: no scan");
        // Each block takes one bit at least.  Arithmetic coding may take less.
        if (is_huffman_ && 8 * std::uint64_t{at} < found_.coefficient_bytes / 128) {
          damaged("JPEG: " + std::to_string(at) + " bytes cannot hold so many blocks");
        }
        found_.end = at;
        return std::move(found_);
      }
      if (is_restart(marker)) continue;
      const std::size_t length = at + 2 <= size_ ? big_endian(encoded_ + at, 2) : 0;
      if (length < 2 || length > size_ - at) damaged("JPEG: the file ends within a segment");
      look(marker, encoded_ + at + 2, length - 2);
      at += length;
      if (marker == kSos) at = find(at, true);
    }
    damaged("JPEG: more than " + std::to_string(kMostMarkers) + " markers");
  }

 private:
  // Where the next marker begins; within a scan, restarts are none.  FF 00 is a stuffed byte, FF FF a fill byte.
  std::size_t find(std::size_t at, bool in_scan) const {
    while (at + 1 < size_) {
      const void* next = std::memchr(encoded_ + at, 0xFF, size_ - 1 - at);
      if (next == nullptr) break;
      at = static_cast<std::size_t>(static_cast<const std::uint8_t*>(next) - encoded_);
      const std::uint8_t marker = encoded_[at + 1];
      if (marker != 0 && marker != 0xFF && !(in_scan && is_restart(marker))) return at;
      ++at;
    }
    damaged("JPEG: the file ends before EOI");
  }

  void look(std::uint8_t marker, const std::uint8_t* data, std::size_t length) {
    const std::string_view text(reinterpret_cast<const char*>(data), length);
    if (is_frame(marker)) look_at_frame(marker, data, length);
    else if (marker == kSos) look_at_scan(data, length);
    else if (!is_known(marker)) damaged("JPEG: unknown marker " + std::to_string(marker));
    else if (marker == kApp1 && text.substr(0, kExif.size()) == kExif) {
      // A block of more than 64 KiB is continued in the next marker.
      if (found_.exif.size() <= kMostMetadata) found_.exif += text.substr(found_.exif.empty() ? 0 : kExif.size());
    } else if (marker == kApp1 && text.substr(0, kXmp.size()) == kXmp) {
      found_.xmp = text.substr(kXmp.size());
    }
  }

  void look_at_frame(std::uint8_t marker, const std::uint8_t* data, std::size_t length) {
    if (found_.width != 0) damaged("JPEG: two frame headers");
    if (length < 6) damaged("JPEG: short frame header");
    const int bits = data[0], count = data[5];
    const bool is_read = marker <= 0xC2 || marker == 0xC9 || marker == 0xCA;
    if (!is_read || bits != 8 || (count != 1 && count != 3 && count != 4)) {
      throw Error(SAMDEPLOY_IMAGE, "JPEG SOF" + std::to_string(marker - 0xC0) + " of " + std::to_string(bits) +
                                       " bits and " + std::to_string(count) +
                                       " components; expected SOF0, 1, 2, 9 or 10 of 8 bits and 1, 3 or 4 components");
    }
    found_.height = big_endian(data + 1, 2), found_.width = big_endian(data + 3, 2), found_.components = count;
    if (found_.width == 0 || found_.height == 0) damaged("JPEG: no pixels");
    check_pixels(found_.height, found_.width, limits_);
    if (length < 6 + 3 * static_cast<std::size_t>(count)) damaged("JPEG: short frame header");
    count_coefficients(data + 6);
    is_progressive_ = is_progressive(marker), is_huffman_ = marker <= 0xC2;
  }

  void count_coefficients(const std::uint8_t* components) {
    std::uint64_t most_across = 1, most_down = 1;
    for (int i = 0; i < found_.components; ++i) {
      most_across = std::max<std::uint64_t>(most_across, components[3 * i + 1] >> 4);
      most_down = std::max<std::uint64_t>(most_down, components[3 * i + 1] & 15);
    }
    const auto blocks = [](std::uint64_t pixels, std::uint64_t factor, std::uint64_t most) {
      return (pixels * factor + 8 * most - 1) / (8 * most);
    };
    for (int i = 0; i < found_.components; ++i) {
      found_.coefficient_bytes += 128 * blocks(found_.width, components[3 * i + 1] >> 4, most_across) *
                                  blocks(found_.height, components[3 * i + 1] & 15, most_down);
    }
  }

  void look_at_scan(const std::uint8_t* data, std::size_t length) {
    if (found_.width == 0) damaged("JPEG: a scan before the frame header");
    if (++found_.scans == 1 && (is_progressive_ || (length != 0 && data[0] < found_.components))) {
      check_held(found_.coefficient_bytes, "JPEG that is progressive, or of several scans,");
    }
    const std::uint64_t pixels = std::uint64_t{found_.width} * found_.height;
    const std::uint64_t most = std::max(kFewScans, std::min(kMostScans, kMostWork / pixels));
    if (found_.scans > most) {
      throw Error(SAMDEPLOY_IMAGE, "JPEG with more than " + std::to_string(most) + " scans of " +
                                       std::to_string(pixels) + " pixels; save it again");
    }
  }

  const std::uint8_t* encoded_;
  std::size_t size_;
  const ImageLimits& limits_;
  JpegMarkers found_;
  bool is_progressive_ = false, is_huffman_ = true;
};

}  // namespace

JpegMarkers follow_markers(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits) {
  return Walk(encoded, size, limits).follow();
}

}  // namespace samdeploy::core

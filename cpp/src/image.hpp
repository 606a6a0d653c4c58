// From an encoded image to the model's input, in exact integers: the same bytes as samdeploy/images/decode.py.
//
// An image is never held whole: a decoder gives its rows to `Rows`, and `Resize` keeps of them what it still needs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "error.hpp"
#include "manifest.hpp"
#include "workspace.hpp"

namespace samdeploy::core {

// Twice Pillow's Image.MAX_IMAGE_PIXELS: where Pillow stops warning and refuses.
constexpr std::uint64_t kMostPixels = 178956970;
constexpr std::uint64_t kMostEncoded = std::uint64_t{64} << 20;
// Of what a decoder cannot give row by row: docs/bundle.md, 4.5.
constexpr std::uint64_t kMostHeld = std::uint64_t{160} << 20;
// A longer block of EXIF or XMP is as if it were not there.
constexpr std::size_t kMostMetadata = std::size_t{1} << 20;

struct ImageLimits {
  std::uint64_t pixels = kMostPixels;
  std::uint64_t encoded = kMostEncoded;  // bytes
};

// Takes an image row by row.
class Rows {
 public:
  virtual ~Rows() = default;
  // Before the first row: the image as stored, and its EXIF orientation, 1 to 8.  May throw.
  virtual void begin(std::int64_t height, std::int64_t width, int orientation) = 0;
  // uint8 [width, 3], RGB, from top to bottom.
  virtual void add(const std::uint8_t* row) noexcept = 0;
};

// Brings an image to uint8 [H, W, 3] at `target`: upright, with an antialiased filter, vertical pass first.
class Resize final : public Rows {
 public:
  Resize(const Preprocessing& preprocessing, std::uint8_t* target, Workspace& space)
      : preprocessing_(preprocessing), target_(target), space_(space) {}

  // Throws IMAGE_TOO_LARGE: so long and thin that its resize would fill the memory.
  void begin(std::int64_t height, std::int64_t width, int orientation) override;
  void add(const std::uint8_t* row) noexcept override;

 private:
  // What is cut off above or left, of what is cut off on both sides.
  std::int64_t margin(std::int64_t both) const;
  void finish(std::size_t span) noexcept;

  const Preprocessing& preprocessing_;
  std::uint8_t* target_;
  Workspace& space_;
  bool lies_ = false;  // rows of the file are columns of the upright image
  std::int64_t row_ = 0, kept_ = 0;
  std::size_t line_ = 0, next_ = 0;
};

// Throws IMAGE: damaged, truncated, or neither JPEG nor PNG of a known kind.  IMAGE_TOO_LARGE: beyond `limits`.
void decode(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits, Workspace& space, Rows& rows);
void decode_jpeg(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits, Workspace& space, Rows& rows);
void decode_png(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits, Workspace& space, Rows& rows);

// Throws IMAGE unless a file that begins with these bytes (16, or all that it has) may be one that `decode` reads.
void check_format(const std::uint8_t* start, std::size_t size);
// Throws IMAGE_TOO_LARGE.
void check_encoded(std::uint64_t size, const ImageLimits& limits);
void check_pixels(std::uint64_t height, std::uint64_t width, const ImageLimits& limits);
void check_held(std::uint64_t bytes, const char* kind);
// Throws IMAGE.
[[noreturn]] void damaged(const std::string& why);

// The EXIF orientation, 1 to 8; 1 where there is none, or a damaged one.
// `exif`: TIFF bytes, with or without "Exif\0\0" before them; `xmp`: asked where EXIF has none.
int orientation(std::string_view exif, std::string_view xmp);

inline std::uint32_t big_endian(const std::uint8_t* at, int bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | at[i];
  return value;
}

}  // namespace samdeploy::core

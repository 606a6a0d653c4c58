// From an encoded picture to the model's input, in exact integers: the same bytes as samdeploy/preprocess.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "workspace.hpp"

namespace samdeploy::core {

// Pixels of someone else; row r starts at `pixels + r * stride`.
struct View {
  const std::uint8_t* pixels;
  std::int64_t height;
  std::int64_t width;
  std::int64_t stride;
};

// Twice Pillow's Image.MAX_IMAGE_PIXELS: where Pillow stops warning and refuses.
constexpr std::uint64_t kMostPixels = 178956970;

// Throws IMAGE: damaged, truncated, or neither JPEG nor PNG of a known kind.  IMAGE_TOO_LARGE: more than `most_pixels`.
// The picture, upright, is one of `space` until that is used again.
const Picture& decode(const std::uint8_t* encoded, std::size_t size, std::uint64_t most_pixels, Workspace& space);
const Picture& decode_jpeg(const std::uint8_t* encoded, std::size_t size, std::uint64_t most_pixels, Workspace& space);
const Picture& decode_png(const std::uint8_t* encoded, std::size_t size, std::uint64_t most_pixels, Workspace& space);

// Throws IMAGE_TOO_LARGE if a picture of these sides may not be decoded.
void check_pixels(std::uint64_t height, std::uint64_t width, std::uint64_t most_pixels);

// The EXIF orientation, 1 to 8; 1 where there is none, or a damaged one.
// `exif`: TIFF bytes, with or without "Exif\0\0" before them; `xmp`: asked where EXIF says nothing.
int orientation(const std::optional<std::string>& exif, const std::string& xmp);
// `space.picture`, or `space.turned` where the orientation asks for it.
const Picture& upright(Workspace& space, int orientation);

// Antialiased bilinear, vertical pass first, to uint8 [H, W, 3] at `target`.
// Throws IMAGE_TOO_LARGE: so long and thin that its resize would fill the memory.
void resize(const View& picture, const Preprocessing& preprocessing, std::uint8_t* target, Workspace& space);

}  // namespace samdeploy::core

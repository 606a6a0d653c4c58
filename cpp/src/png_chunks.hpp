// What the chunks of a PNG say, and whether they are whole, before libpng sees them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "image.hpp"

namespace samdeploy::core {

struct PngChunks {
  std::uint32_t width = 0, height = 0;  // pixels
  int depth = 0, colour = 0;
  bool is_interlaced = false;
  std::array<std::uint8_t, 1024> palette;  // 256 times R, G, B, alpha
  std::optional<std::string_view> transparency;
  int orientation = 1;
};

// Throws IMAGE: incomplete, a wrong checksum of what makes the pixels, or a kind that is not read.  IMAGE_TOO_LARGE.
PngChunks read_chunks(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits);

// Whether libpng needs this chunk for the pixels; `kind`: its four letters.
bool makes_pixels(const std::uint8_t* kind, const PngChunks& png);

}  // namespace samdeploy::core

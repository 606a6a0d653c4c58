#include "picture.hpp"

#include <cstring>

#include "error.hpp"

namespace samdeploy::core {

void check_pixels(std::uint64_t height, std::uint64_t width, std::uint64_t most_pixels) {
  if (width != 0 && height > most_pixels / width) {
    throw Error(SAMDEPLOY_IMAGE_TOO_LARGE, "too many pixels, scale it down first (" + std::to_string(width) + "x" +
                                               std::to_string(height) + " found, at most " +
                                               std::to_string(most_pixels) + " allowed)");
  }
}

const Picture& decode(const std::uint8_t* encoded, std::size_t size, std::uint64_t most_pixels, Workspace& space) {
  if (size == 0) throw Error(SAMDEPLOY_IMAGE, "the file is empty; expected a picture");
  if (size >= 3 && std::memcmp(encoded, "\xFF\xD8\xFF", 3) == 0) return decode_jpeg(encoded, size, most_pixels, space);
  if (size >= 8 && std::memcmp(encoded, "\x89PNG\r\n\x1a\n", 8) == 0) {
    return decode_png(encoded, size, most_pixels, space);
  }
  throw Error(SAMDEPLOY_IMAGE, "not a picture, or of a kind that this library cannot read; expected JPEG or PNG");
}

}  // namespace samdeploy::core

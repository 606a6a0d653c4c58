#include "image.hpp"

#include <cstring>

namespace samdeploy::core {
namespace {

// Of this library; Python reads more.
constexpr const char* kExpected = "; expected JPEG or PNG; convert it first";
constexpr std::string_view kJpeg = "\xFF\xD8\xFF", kPng = "\x89PNG\r\n\x1a\n";

struct Format {
  std::size_t at;
  std::string_view bytes;
  const char* name;
};
using namespace std::string_view_literals;
constexpr Format kUnread[] = {{0, "GIF8"sv, "GIF"},         {8, "WEBP"sv, "WebP"},       {0, "BM"sv, "BMP"},
                              {0, "II*\0"sv, "TIFF"},       {0, "MM\0*"sv, "TIFF"},      {4, "ftypavif"sv, "AVIF"},
                              {4, "ftypheic"sv, "HEIC"}};

bool begins(const std::uint8_t* start, std::size_t size, std::string_view bytes, std::size_t at = 0) {
  return size >= at + bytes.size() && std::memcmp(start + at, bytes.data(), bytes.size()) == 0;
}

}  // namespace

void check_format(const std::uint8_t* start, std::size_t size) {
  if (size == 0) throw Error(SAMDEPLOY_IMAGE, "the file is empty; expected an image");
  if (begins(start, size, kJpeg) || begins(start, size, kPng)) return;
  for (const Format& each : kUnread) {
    if (!begins(start, size, each.bytes, each.at)) continue;
    throw Error(SAMDEPLOY_IMAGE, std::string("is ") + each.name + kExpected);
  }
  throw Error(SAMDEPLOY_IMAGE, std::string("not an image that samdeploy reads") + kExpected);
}

void check_encoded(std::uint64_t size, const ImageLimits& limits) {
  if (size <= limits.encoded) return;
  throw Error(SAMDEPLOY_IMAGE_TOO_LARGE, std::to_string(size) + " bytes are too many, at most " +
                                             std::to_string(limits.encoded) + " are read; max_bytes sets the limit");
}

void check_pixels(std::uint64_t height, std::uint64_t width, const ImageLimits& limits) {
  if (width == 0 || height <= limits.pixels / width) return;
  throw Error(SAMDEPLOY_IMAGE_TOO_LARGE, "too many pixels, scale it down first (" + std::to_string(width) + "x" +
                                             std::to_string(height) + " found, at most " +
                                             std::to_string(limits.pixels) + " allowed)");
}

void check_held(std::uint64_t bytes, const char* kind) {
  if (bytes <= kMostHeld) return;
  throw Error(SAMDEPLOY_IMAGE_TOO_LARGE, std::string("decoding a ") + kind + " of this size takes " +
                                             std::to_string(bytes >> 20) + " MiB, at most " +
                                             std::to_string(kMostHeld >> 20) + " are allowed; scale it down, or save " +
                                             "it without that");
}

void damaged(const std::string& why) {
  throw Error(SAMDEPLOY_IMAGE, "damaged or truncated (" + why + "); expected a complete image");
}

void decode(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits, Workspace& space, Rows& rows) {
  check_encoded(size, limits);
  check_format(encoded, size);
  (begins(encoded, size, kPng) ? decode_png : decode_jpeg)(encoded, size, limits, space, rows);
}

}  // namespace samdeploy::core

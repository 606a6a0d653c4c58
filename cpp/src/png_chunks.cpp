#include "png_chunks.hpp"

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cstring>

namespace samdeploy::core {
namespace {

constexpr unsigned kMostChunks = 1 << 16;
constexpr std::uint64_t kLargestRatio = 1032;  // deflate makes at most so many bytes of one
constexpr int kPalette = 3;

struct Chunk {
  std::string_view kind, data;
  bool is_sound;  // its checksum is right; looked at where it matters
};

// The last of each kind; the others are never inflated.
struct Metadata {
  std::optional<Chunk> exif, exif_text, xmp;
};

// For a message, which is text.
std::string shown(std::string_view kind) {
  std::string name(kind);
  for (char& c : name) c = std::isalpha(static_cast<unsigned char>(c)) != 0 ? c : '?';
  return name;
}

bool is_critical(std::string_view kind) { return (kind[0] & 0x20) == 0; }

bool has_right_checksum(const std::uint8_t* chunk, std::size_t length) {
  return crc32_z(0, chunk + 4, length + 4) == big_endian(chunk + 8 + length, 4);
}

// Splits `text` behind its first NUL; all of it if it has none.
std::string_view cut(std::string_view* text) {
  const std::size_t at = std::min(text->find('\0'), text->size());
  const std::string_view head = text->substr(0, at);
  text->remove_prefix(std::min(at + 1, text->size()));
  return head;
}

std::optional<std::string> inflated(std::string_view deflated) {
  z_stream stream = {};
  if (inflateInit(&stream) != Z_OK) throw std::bad_alloc();
  std::string text(kMostMetadata + 1, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(deflated.data()));
  stream.avail_in = static_cast<uInt>(deflated.size());
  stream.next_out = reinterpret_cast<Bytef*>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  const int status = inflate(&stream, Z_FINISH);
  text.resize(stream.total_out);
  inflateEnd(&stream);
  if (status != Z_STREAM_END || text.size() > kMostMetadata) return std::nullopt;
  return text;
}

// tEXt, zTXt or iTXt; none where it is damaged or too long.
std::optional<std::string> text_of(const std::optional<Chunk>& chunk) {
  if (!chunk || !chunk->is_sound) return std::nullopt;
  std::string_view rest = chunk->data;
  cut(&rest);  // the keyword
  bool is_deflated = chunk->kind == "zTXt";
  char method = is_deflated && !rest.empty() ? rest[0] : '\0';
  if (is_deflated) rest.remove_prefix(std::min<std::size_t>(1, rest.size()));
  if (chunk->kind == "iTXt") {
    is_deflated = rest.substr(0, 1) == "\1";
    method = rest.size() > 1 ? rest[1] : '\0';
    rest.remove_prefix(std::min<std::size_t>(2, rest.size()));
    cut(&rest), cut(&rest);  // language, translated keyword
  }
  if (is_deflated) return method == '\0' ? inflated(rest) : std::nullopt;
  if (rest.size() > kMostMetadata) return std::nullopt;
  return std::string(rest);
}

int digit(char c) {
  const auto at = std::string_view("0123456789abcdef").find(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

// EXIF as ImageMagick writes it: three line ends with a heading, then pairs of hexadecimal digits; none where these are
// damaged.
std::string exif_of(const std::optional<std::string>& text) {
  if (!text) return "";
  std::size_t at = 0;
  for (int line = 0; line < 3; ++line) {
    at = text->find('\n', at);
    if (at == std::string::npos) return "";
    ++at;
  }
  std::string digits = text->substr(at), bytes;
  digits.erase(std::remove(digits.begin(), digits.end(), '\n'), digits.end());
  for (std::size_t i = 0; i < digits.size();) {
    if (std::strchr(" \t\r\v\f", digits[i]) != nullptr && digits[i] != '\0') {
      ++i;
      continue;
    }
    const int high = digit(digits[i]), low = i + 1 < digits.size() ? digit(digits[i + 1]) : -1;
    if (high < 0 || low < 0) return "";
    bytes += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return bytes;
}

int orientation_of(const Metadata& metadata) {
  std::string exif;
  if (metadata.exif && metadata.exif->is_sound) {
    if (metadata.exif->data.size() <= kMostMetadata) exif = metadata.exif->data;
  } else {
    exif = exif_of(text_of(metadata.exif_text));
  }
  return orientation(exif, text_of(metadata.xmp).value_or(""));
}

// Of one row of pixels, with the byte before it that names its filter.
std::uint64_t row_bytes(std::uint64_t columns, std::uint64_t bits) { return 1 + (columns * bits + 7) / 8; }

std::uint64_t bytes_of_pixels(const PngChunks& png) {
  constexpr std::uint64_t channels[] = {1, 0, 3, 1, 2, 0, 4};
  const std::uint64_t bits = channels[png.colour] * static_cast<std::uint64_t>(png.depth);
  if (!png.is_interlaced) return png.height * row_bytes(png.width, bits);
  // Adam7: first column, first row, and the steps between columns and rows, of each pass.
  constexpr std::uint64_t passes[][4] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                         {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
  std::uint64_t total = 0;
  for (const auto& [column, row, right, down] : passes) {
    if (png.width <= column || png.height <= row) continue;
    total += (png.height - row + down - 1) / down * row_bytes((png.width - column + right - 1) / right, bits);
  }
  return total;
}

class Walk {
 public:
  Walk(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits)
      : encoded_(encoded), size_(size), limits_(limits) {}

  PngChunks follow() {
    png_.palette.fill(0);  // an index beyond the palette is black
    for (std::size_t i = 3; i < 1024; i += 4) png_.palette[i] = 255;
    std::size_t at = 8;
    for (unsigned count = 0;; ++count) {
      if (at >= size_) damaged("PNG: ends before its last chunk, IEND");
      if (count == kMostChunks) damaged("PNG: more than " + std::to_string(kMostChunks) + " chunks");
      if (size_ - at < 12) damaged("PNG: ends in the middle of a chunk");
      const std::size_t length = big_endian(encoded_ + at, 4);
      const std::string_view kind(reinterpret_cast<const char*>(encoded_ + at + 4), 4);
      if (length > size_ - at - 12) damaged("PNG: ends in the middle of chunk '" + shown(kind) + "'");
      look({kind, {kind.data() + 4, length}, false}, encoded_ + at);
      at += 12 + length;
      if (kind == "IEND") break;
    }
    const std::uint64_t needed = png_.width == 0 ? 0 : bytes_of_pixels(png_);
    if (needed == 0 || stored_ * kLargestRatio < needed) {
      damaged("PNG: at most " + std::to_string(stored_ * kLargestRatio) + " of " + std::to_string(needed) +
              " bytes of pixels");
    }
    look_at_transparency();
    png_.orientation = orientation_of(metadata_);
    return png_;
  }

 private:
  void look(Chunk chunk, const std::uint8_t* start) {
    if (png_.width == 0 && chunk.kind != "IHDR") damaged("PNG: does not begin with IHDR");
    const bool decides = is_critical(chunk.kind) || chunk.kind == "tRNS";
    std::optional<Chunk>* kept = decides ? nullptr : place_of(chunk);
    if (!decides && kept == nullptr) return;
    chunk.is_sound = has_right_checksum(start, chunk.data.size());
    if (kept != nullptr) {
      *kept = chunk;
      return;
    }
    if (has_pixels_ && (chunk.kind == "PLTE" || chunk.kind == "tRNS")) {
      damaged("PNG: " + shown(chunk.kind) + " after pixels");
    }
    if (!chunk.is_sound) damaged("PNG: checksum of chunk '" + shown(chunk.kind) + "' is wrong");
    const std::uint8_t* data = start + 8;
    if (chunk.kind == "IHDR") {
      look_at_header(data, chunk.data.size());
    } else if (chunk.kind == "PLTE") {
      const std::size_t length = chunk.data.size(), count = std::min<std::size_t>(length, 768);
      if (png_.colour == kPalette && (has_palette_ || length == 0 || length > 768 || length % 3 != 0)) {
        damaged("PNG: damaged palette");
      }
      has_palette_ = true;
      for (std::size_t i = 0; i < count; ++i) png_.palette[i / 3 * 4 + i % 3] = data[i];
    } else if (chunk.kind == "IDAT") {
      if (png_.colour == kPalette && !has_palette_) damaged("PNG: no palette");
      has_pixels_ = true;
      stored_ += chunk.data.size();
    } else if (chunk.kind == "tRNS") {
      png_.transparency = chunk.data;
    } else if (chunk.kind != "IEND") {
      damaged("PNG: unknown critical chunk '" + shown(chunk.kind) + "'");
    }
  }

  std::optional<Chunk>* place_of(const Chunk& chunk) {
    if (chunk.kind == "eXIf") return &metadata_.exif;
    if (chunk.kind != "tEXt" && chunk.kind != "zTXt" && chunk.kind != "iTXt") return nullptr;
    std::string_view start = chunk.data.substr(0, 80);
    const std::string_view keyword = cut(&start);
    if (keyword == "Raw profile type exif") return &metadata_.exif_text;
    return keyword == "XML:com.adobe.xmp" ? &metadata_.xmp : nullptr;
  }

  void look_at_header(const std::uint8_t* data, std::size_t length) {
    if (png_.width != 0 || length != 13) damaged("PNG: damaged IHDR");
    png_.width = big_endian(data, 4), png_.height = big_endian(data + 4, 4);
    png_.depth = data[8], png_.colour = data[9], png_.is_interlaced = data[12] != 0;
    if (data[10] != 0 || data[11] != 0 || data[12] > 1) damaged("PNG: damaged IHDR");
    if (png_.width == 0 || png_.height == 0) damaged("PNG: no pixels");
    check_pixels(png_.height, png_.width, limits_);
    if (png_.colour > 6 || png_.colour == 1 || png_.colour == 5 || png_.depth > 16) damaged("PNG: damaged IHDR");
    if (png_.is_interlaced) check_held(std::uint64_t{3} * png_.width * png_.height, "interlaced PNG");
  }

  void look_at_transparency() {
    if (!png_.transparency || png_.colour > kPalette) return;
    const std::string_view alphas = *png_.transparency;
    if (png_.colour == kPalette) {
      for (std::size_t i = 0; i < std::min<std::size_t>(alphas.size(), 256); ++i) {
        png_.palette[4 * i + 3] = static_cast<std::uint8_t>(alphas[i]);
      }
      return;
    }
    if (png_.depth != 1 && png_.depth != 8) {
      throw Error(SAMDEPLOY_IMAGE,
                  "has a transparent colour beside 2, 4 or 16 bits per channel; convert it to RGBA first");
    }
    if (alphas.size() < (png_.colour == 0 ? 2u : 6u)) damaged("PNG: short tRNS");
  }

  const std::uint8_t* encoded_;
  std::size_t size_;
  const ImageLimits& limits_;
  PngChunks png_;
  Metadata metadata_;
  bool has_palette_ = false, has_pixels_ = false;
  std::uint64_t stored_ = 0;
};

}  // namespace

bool makes_pixels(const std::uint8_t* kind, const PngChunks& png) {
  const std::string_view name(reinterpret_cast<const char*>(kind), 4);
  return name == "IHDR" || name == "IDAT" || name == "IEND" || (name == "PLTE" && png.colour == kPalette);
}

PngChunks read_chunks(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits) {
  return Walk(encoded, size, limits).follow();
}

}  // namespace samdeploy::core

// PNG by libpng, which undoes filters and interlacing; what the samples mean is decided here, as Pillow and
// samdeploy/preprocess.py do.
#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstring>

#include <png.h>

#include "error.hpp"
#include "picture.hpp"

namespace samdeploy::core {
namespace {

struct Failure {
  std::jmp_buf back;
  char text[200];
};

// Everything that a jump out of libpng must not skip lives in the caller.
struct Work {
  const std::uint8_t* encoded;
  std::size_t size;
  std::size_t position = 0;
  std::uint64_t most_pixels;
  int depth = 0;
  int colour = 0;
  Workspace* space;
  std::array<std::uint8_t, 1024> palette;  // 256 times R, G, B, alpha
  std::optional<std::string> transparency;
  std::optional<std::string> exif;
  std::string xmp;
  std::optional<Error> refused;
};

[[noreturn]] void fail(png_structp png, png_const_charp text) {
  auto* failure = static_cast<Failure*>(png_get_error_ptr(png));
  std::strncpy(failure->text, text, sizeof failure->text - 1);
  std::longjmp(failure->back, 1);
}

void be_silent(png_structp, png_const_charp) {}

void read_bytes(png_structp png, png_bytep target, std::size_t count) {
  auto* work = static_cast<Work*>(png_get_io_ptr(png));
  if (count > work->size - work->position) png_error(png, "the file ends before the picture");
  std::memcpy(target, work->encoded + work->position, count);
  work->position += count;
}

std::uint32_t big_endian(const std::uint8_t* at) {
  return std::uint32_t{at[0]} << 24 | std::uint32_t{at[1]} << 16 | std::uint32_t{at[2]} << 8 | at[3];
}

// Palette, transparency and EXIF as they stand in the file: libpng drops what Pillow takes, such as an alpha value for
// a colour that the palette lacks.
void read_chunks(Work* work) {
  work->palette.fill(0);  // an index beyond the palette is black
  for (std::size_t i = 3; i < 1024; i += 4) work->palette[i] = 255;
  for (std::size_t at = 8; at + 12 <= work->size;) {
    const std::size_t length = big_endian(work->encoded + at);
    if (length > work->size - at - 12) return;
    const char* kind = reinterpret_cast<const char*>(work->encoded + at + 4);
    const std::uint8_t* data = work->encoded + at + 8;
    const std::string_view text(reinterpret_cast<const char*>(data), length);
    if (std::memcmp(kind, "PLTE", 4) == 0) {
      for (std::size_t i = 0; i < std::min<std::size_t>(length, 768); ++i) work->palette[i / 3 * 4 + i % 3] = data[i];
    } else if (std::memcmp(kind, "tRNS", 4) == 0) {
      work->transparency.emplace(text);
    } else if (std::memcmp(kind, "eXIf", 4) == 0) {
      work->exif.emplace(text);
    }
    at += 12 + length;
  }
}

// libpng reserves what a chunk promises before it reads it (found by fuzzing: 2 GiB for an eXIf in 913 bytes), so a
// promise that the file cannot keep is seen before.
bool keeps_its_promises(const std::uint8_t* encoded, std::size_t size) {
  for (std::size_t at = 8; at + 12 <= size;) {
    const std::size_t length = big_endian(encoded + at);
    if (length > size - at - 12) return false;
    if (std::memcmp(encoded + at + 4, "IEND", 4) == 0) return true;
    at += 12 + length;
  }
  return true;
}

// ImageMagick writes EXIF as text: two lines of heading, then hexadecimal digits.
void read_texts(png_structp png, png_infop info, Work* work) {
  png_textp texts = nullptr;
  const int count = png_get_text(png, info, &texts, nullptr);
  for (int i = 0; i < count; ++i) {
    const std::string key = texts[i].key;
    const std::string text(texts[i].text, texts[i].itxt_length ? texts[i].itxt_length : texts[i].text_length);
    if (key == "XML:com.adobe.xmp") work->xmp = text;
    if (key != "Raw profile type exif" || work->exif) continue;
    std::size_t at = 0;
    for (int line = 0; line < 3 && at != std::string::npos; ++line) at = text.find('\n', at + (line ? 1 : 0));
    std::string digits;
    for (const char c : at == std::string::npos ? std::string() : text.substr(at)) {
      if (!std::strchr(" \n\r\t", c)) digits += c;
    }
    std::string bytes;
    if (digits.size() % 2 || digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) return;
    for (std::size_t d = 0; d < digits.size(); d += 2) {
      bytes += static_cast<char>(std::stoi(digits.substr(d, 2), nullptr, 16));
    }
    work->exif = bytes;
  }
}

std::uint8_t over_white(unsigned colour, unsigned alpha) {
  return static_cast<std::uint8_t>((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

// The transparent colour's value, if the file names one; 16 bits are cut to the 8 that Pillow compares.
int transparent(const Work& work, std::size_t channel) {
  const std::optional<std::string>& found = work.transparency;
  if (!found || found->size() < 2 * channel + 2) return -1;
  return static_cast<unsigned char>((*found)[2 * channel + 1]);
}

void convert_row(const Work& work, const std::uint8_t* in, std::int64_t width, std::uint8_t* out) {
  const std::size_t step = work.depth == 16 ? 2 : 1;  // of 16 bits the high byte, which comes first
  const int key[3] = {transparent(work, 0), transparent(work, 1), transparent(work, 2)};
  for (std::int64_t x = 0; x < width; ++x, out += 3) {
    if (work.colour == PNG_COLOR_TYPE_PALETTE) {
      const std::uint8_t* entry = &work.palette[std::size_t{*in++} * 4];
      for (int i = 0; i < 3; ++i) out[i] = over_white(entry[i], entry[3]);
      continue;
    }
    const bool is_grey = (work.colour & PNG_COLOR_MASK_COLOR) == 0;
    const bool has_alpha = (work.colour & PNG_COLOR_MASK_ALPHA) != 0;
    std::uint8_t sample[4];
    const std::size_t channels = (is_grey ? 1 : 3) + (has_alpha ? 1 : 0);
    for (std::size_t i = 0; i < channels; ++i, in += step) sample[i] = *in;
    if (is_grey && work.depth < 8) sample[0] = static_cast<std::uint8_t>(sample[0] * (255 / ((1 << work.depth) - 1)));
    unsigned alpha = has_alpha ? sample[channels - 1] : 255;
    if (!has_alpha && work.transparency) {
      const bool is_key = !is_grey          ? sample[0] == key[0] && sample[1] == key[1] && sample[2] == key[2]
                          : work.depth == 1 ? (sample[0] != 0) == (key[0] != 0)
                                            : sample[0] == key[0];
      alpha = is_key ? 0 : 255;
    }
    for (std::size_t i = 0; i < 3; ++i) out[i] = over_white(sample[is_grey ? 0 : i], alpha);
  }
}

// Sets what must be known before pixels are decoded; false: `work->refused` says why not.
bool plan(png_structp png, png_infop info, Work* work) {
  const std::size_t height = png_get_image_height(png, info), width = png_get_image_width(png, info);
  work->depth = png_get_bit_depth(png, info);
  work->colour = png_get_color_type(png, info);
  try {
    check_pixels(height, width, work->most_pixels);
    read_chunks(work);
    const bool is_palette = work->colour == PNG_COLOR_TYPE_PALETTE;
    const bool has_alpha = (work->colour & PNG_COLOR_MASK_ALPHA) != 0;
    if (work->transparency && !is_palette && !has_alpha && work->depth != 1 && work->depth != 8) {
      throw Error(SAMDEPLOY_IMAGE,
                  "has a transparent colour beside 2, 4 or 16 bits per channel; convert it to RGBA first");
    }
    if (work->transparency && is_palette) {
      const std::size_t count = std::min<std::size_t>(work->transparency->size(), 256);
      for (std::size_t i = 0; i < count; ++i) {
        work->palette[4 * i + 3] = static_cast<std::uint8_t>((*work->transparency)[i]);
      }
    }
    if (work->transparency && !is_palette && !has_alpha &&
        work->transparency->size() < ((work->colour & PNG_COLOR_MASK_COLOR) != 0 ? 6u : 2u)) {
      throw Error(SAMDEPLOY_IMAGE, "damaged or truncated (PNG: short tRNS); expected a complete picture");
    }
    work->space->picture.height = static_cast<std::int64_t>(height);
    work->space->picture.width = static_cast<std::int64_t>(width);
    work->space->picture.pixels.resize(height * width * 3);
  } catch (const Error& error) {
    work->refused.emplace(error);
    return false;
  } catch (const std::bad_alloc&) {
    work->refused.emplace(SAMDEPLOY_NO_MEMORY, "no memory for the picture");
    return false;
  }
  return true;
}

// Room for one row, or for all where the file is interlaced.
bool reserve(Work* work, std::size_t row_bytes, std::size_t rows) {
  try {
    work->space->rows.resize(row_bytes * rows);
    work->space->pointers.clear();
    for (std::size_t i = 0; i < rows; ++i) {
      work->space->pointers.push_back(work->space->rows.data() + i * row_bytes);
    }
  } catch (const std::bad_alloc&) {
    work->refused.emplace(SAMDEPLOY_NO_MEMORY, "no memory for the picture");
    return false;
  }
  return true;
}

bool finish(png_structp png, png_infop info, Work* work) {
  try {
    read_texts(png, info, work);
  } catch (const std::bad_alloc&) {
    work->refused.emplace(SAMDEPLOY_NO_MEMORY, "no memory for the picture's texts");
  }
  return !work->refused;
}

// No object with a destructor may live in here: longjmp passes it by.
bool read_rows(png_structp png, png_infop info, Work* work) {
  png_set_read_fn(png, work, read_bytes);
  png_set_user_limits(png, 0x7fffffff, 0x7fffffff);  // check_pixels is the limit
  png_set_chunk_malloc_max(png, std::size_t{8} << 20);  // of one text, after it was inflated
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_DEFAULT);
  png_read_info(png, info);
  if (!plan(png, info, work)) return false;
  if (work->depth < 8) png_set_packing(png);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const std::size_t height = static_cast<std::size_t>(work->space->picture.height);
  const std::int64_t width = work->space->picture.width;
  if (!reserve(work, png_get_rowbytes(png, info), passes > 1 ? height : 1)) return false;
  if (passes > 1) png_read_image(png, work->space->pointers.data());
  for (std::size_t row = 0; row < height; ++row) {
    if (passes == 1) png_read_row(png, work->space->pointers[0], nullptr);
    convert_row(*work, work->space->pointers[passes > 1 ? row : 0], width,
                work->space->picture.pixels.data() + row * static_cast<std::size_t>(width) * 3);
  }
  png_read_end(png, info);
  return finish(png, info, work);
}

bool read_png(Work* work, Failure* failure) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, failure, fail, be_silent);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  if (info == nullptr) {
    png_destroy_read_struct(&png, nullptr, nullptr);
    return false;
  }
  if (setjmp(failure->back) != 0) {
    png_destroy_read_struct(&png, &info, nullptr);
    return false;
  }
  const bool done = read_rows(png, info, work);
  png_destroy_read_struct(&png, &info, nullptr);
  return done;
}

}  // namespace

const Picture& decode_png(const std::uint8_t* encoded, std::size_t size, std::uint64_t most_pixels, Workspace& space) {
  Work work{};
  work.encoded = encoded;
  work.size = size;
  work.most_pixels = most_pixels;
  work.space = &space;
  if (!keeps_its_promises(encoded, size)) {
    throw Error(SAMDEPLOY_IMAGE,
                "damaged or truncated (PNG: the file ends before the picture); expected a complete picture");
  }
  Failure failure;
  std::memset(failure.text, 0, sizeof failure.text);
  if (!read_png(&work, &failure)) {
    if (work.refused) throw *work.refused;
    throw Error(SAMDEPLOY_IMAGE, std::string("damaged or truncated (PNG: ") + failure.text +
                                     "); expected a complete picture");
  }
  return upright(space, orientation(work.exif, work.xmp));
}

}  // namespace samdeploy::core

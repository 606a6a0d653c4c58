// PNG by libpng, which undoes compression and filters; what the samples mean is decided here, as Pillow and
// samdeploy/preprocess.py do.
#include <csetjmp>
#include <cstring>

#include <png.h>

#include "image.hpp"
#include "png_chunks.hpp"

namespace samdeploy::core {
namespace {

struct Failure {
  std::jmp_buf back;
  char text[200];
};

[[noreturn]] void fail(png_structp png, png_const_charp text) {
  auto* failure = static_cast<Failure*>(png_get_error_ptr(png));
  std::strncpy(failure->text, text, sizeof failure->text - 1);
  std::longjmp(failure->back, 1);
}

void be_silent(png_structp, png_const_charp) {}

// Gives libpng the chunks that make the pixels; it reserves memory for the others, up to gigabytes.
struct Source {
  const std::uint8_t* encoded;
  std::size_t at;    // `read_chunks` has seen that all chunks up to IEND are whole
  std::size_t left;  // of the current chunk
  const PngChunks& png;
};

void read_bytes(png_structp png, png_bytep target, std::size_t count) {
  auto* source = static_cast<Source*>(png_get_io_ptr(png));
  while (source->left == 0) {
    const std::uint8_t* chunk = source->encoded + source->at;
    const std::size_t length = std::size_t{12} + big_endian(chunk, 4);
    if (makes_pixels(chunk + 4, source->png)) source->left = length;
    else source->at += length;
  }
  if (count > source->left) png_error(png, "the file ends before the image");
  std::memcpy(target, source->encoded + source->at, count);
  source->at += count;
  source->left -= count;
}

std::uint8_t over_white(unsigned colour, unsigned alpha) {
  return static_cast<std::uint8_t>((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

// Turns samples as stored into uint8 RGB.
class Pixels {
 public:
  explicit Pixels(const PngChunks& png)
      : png_(png),
        is_grey_((png.colour & PNG_COLOR_MASK_COLOR) == 0),
        has_alpha_((png.colour & PNG_COLOR_MASK_ALPHA) != 0) {
    for (std::size_t i = 0; i < 3; ++i) key_[i] = transparent(i);
  }

  // `count` pixels at `in`, to every `step`th pixel at `out`.
  void convert(const std::uint8_t* in, std::size_t count, std::uint8_t* out, std::size_t step = 1) const {
    const std::size_t bytes = png_.depth == 16 ? 2 : 1;  // of 16 bits the high byte, which comes first
    for (std::size_t x = 0; x < count; ++x, out += 3 * step) {
      if (png_.colour == PNG_COLOR_TYPE_PALETTE) {
        const std::uint8_t* entry = &png_.palette[std::size_t{*in++} * 4];
        for (int i = 0; i < 3; ++i) out[i] = over_white(entry[i], entry[3]);
        continue;
      }
      std::uint8_t sample[4];
      const std::size_t channels = (is_grey_ ? 1 : 3) + (has_alpha_ ? 1 : 0);
      for (std::size_t i = 0; i < channels; ++i, in += bytes) sample[i] = *in;
      if (is_grey_ && png_.depth < 8) {
        sample[0] = static_cast<std::uint8_t>(sample[0] * (255 / ((1 << png_.depth) - 1)));
      }
      unsigned alpha = has_alpha_ ? sample[channels - 1] : 255;
      if (!has_alpha_ && png_.transparency) alpha = is_key(sample) ? 0 : 255;
      for (std::size_t i = 0; i < 3; ++i) out[i] = over_white(sample[is_grey_ ? 0 : i], alpha);
    }
  }

 private:
  // The transparent colour's value, if the file names one; 16 bits are cut to the 8 that Pillow compares.
  int transparent(std::size_t channel) const {
    if (!png_.transparency || png_.transparency->size() < 2 * channel + 2) return -1;
    return static_cast<unsigned char>((*png_.transparency)[2 * channel + 1]);
  }
  bool is_key(const std::uint8_t* sample) const {
    if (!is_grey_) return sample[0] == key_[0] && sample[1] == key_[1] && sample[2] == key_[2];
    return png_.depth == 1 ? (sample[0] != 0) == (key_[0] != 0) : sample[0] == key_[0];
  }

  const PngChunks& png_;
  bool is_grey_, has_alpha_;
  int key_[3];
};

// Everything that a jump out of libpng must not skip lives in the caller.
struct Work {
  const PngChunks& png;
  const Pixels& pixels;
  Rows& rows;
  std::uint8_t *stored, *rgb, *whole;  // a row as libpng gives it, one as RGB, and all rows where they are interlaced
};

void read_row_by_row(png_structp png, const Work& work) {
  for (std::uint32_t row = 0; row < work.png.height; ++row) {
    png_read_row(png, work.stored, nullptr);
    work.pixels.convert(work.stored, work.png.width, work.rgb);
    work.rows.add(work.rgb);
  }
}

void read_interlaced(png_structp png, const Work& work) {
  const std::size_t height = work.png.height, width = work.png.width;
  for (int pass = 0; pass < PNG_INTERLACE_ADAM7_PASSES; ++pass) {
    const std::size_t columns = PNG_PASS_COLS(width, pass), rows = PNG_PASS_ROWS(height, pass);
    for (std::size_t row = 0; columns != 0 && row < rows; ++row) {
      png_read_row(png, work.stored, nullptr);
      const std::size_t y = PNG_ROW_FROM_PASS_ROW(row, pass), x = PNG_PASS_START_COL(pass);
      work.pixels.convert(work.stored, columns, work.whole + (y * width + x) * 3, PNG_PASS_COL_OFFSET(pass));
    }
  }
  for (std::size_t row = 0; row < height; ++row) work.rows.add(work.whole + row * width * 3);
}

bool read_png(Source* source, const Work& work, Failure* failure) {
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
  png_set_read_fn(png, source, read_bytes);
  png_set_sig_bytes(png, 8);
  png_set_user_limits(png, 0x7fffffff, 0x7fffffff);                     // `read_chunks` has looked at the size
  png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);  // and at the checksums
  png_read_info(png, info);
  if (work.png.depth < 8) png_set_packing(png);
  png_read_update_info(png, info);
  if (work.png.is_interlaced) read_interlaced(png, work);
  else read_row_by_row(png, work);
  png_read_end(png, info);
  png_destroy_read_struct(&png, &info, nullptr);
  return true;
}

}  // namespace

void decode_png(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits, Workspace& space,
                Rows& rows) {
  const PngChunks png = read_chunks(encoded, size, limits);
  rows.begin(png.height, png.width, png.orientation);
  const std::size_t width = png.width;
  space.row.resize(width * 11);  // 4 channels of 16 bits, then 3 of 8
  if (png.is_interlaced) space.whole.resize(png.height * width * 3);
  const Pixels pixels(png);
  const Work work = {png, pixels, rows, space.row.data(), space.row.data() + width * 8, space.whole.data()};
  Source source = {encoded, 8, 0, png};
  Failure failure;
  std::memset(failure.text, 0, sizeof failure.text);
  if (!read_png(&source, work, &failure)) damaged(std::string("PNG: ") + failure.text);
}

}  // namespace samdeploy::core

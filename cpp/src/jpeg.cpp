// JPEG by libjpeg-turbo, with the settings that Pillow uses: accurate integer DCT, fancy upsampling.
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE
#include <cstring>

#include <jpeglib.h>

#include "image.hpp"
#include "jpeg_markers.hpp"

namespace samdeploy::core {
namespace {

struct Failure {
  jpeg_error_mgr manager;  // first: libjpeg knows only this part
  std::jmp_buf back;
  char text[JMSG_LENGTH_MAX];
};

void fail(j_common_ptr info) {
  auto* failure = reinterpret_cast<Failure*>(info->err);
  info->err->format_message(info, failure->text);
  std::longjmp(failure->back, 1);
}

void be_silent(j_common_ptr, int) {}
void print_nothing(j_common_ptr) {}

// libjpeg would put an end marker where the file stops.
boolean no_more_bytes(j_decompress_ptr info) {
  auto* failure = reinterpret_cast<Failure*>(info->err);
  std::strncpy(failure->text, "the file ends before the image", JMSG_LENGTH_MAX - 1);
  std::longjmp(failure->back, 1);
}

// 255 - a * b / 255, rounded as Pillow rounds it (MULDIV255); Adobe writes CMYK inverted.
std::uint8_t product(unsigned a, unsigned b) {
  const unsigned sum = a * b + 128;
  return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

void cmyk_row(const std::uint8_t* in, std::size_t width, std::uint8_t* out) {
  for (std::size_t x = 0; x < width; ++x, in += 4, out += 3) {
    const unsigned key = in[3];  // as stored: 255 minus the amount of black
    for (int channel = 0; channel < 3; ++channel) {
      out[channel] = static_cast<std::uint8_t>(key - product(255u - in[channel], key));
    }
  }
}

void grey_row(const std::uint8_t* in, std::size_t width, std::uint8_t* out) {
  for (std::size_t x = 0; x < width; ++x) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = in[x];
}

// No object with a destructor may live in here: longjmp skips it.
// `stored`: room for a row of 4 channels; `rgb`: for one of 3.
bool read_jpeg(const std::uint8_t* encoded, std::size_t size, int channels, std::uint8_t* stored, std::uint8_t* rgb,
               Rows& rows, Failure* failure) {
  jpeg_decompress_struct info;
  std::memset(&info, 0, sizeof info);
  info.err = jpeg_std_error(&failure->manager);
  failure->manager.error_exit = fail;
  failure->manager.emit_message = be_silent;
  failure->manager.output_message = print_nothing;
  if (setjmp(failure->back) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, encoded, static_cast<unsigned long>(size));
  info.src->fill_input_buffer = no_more_bytes;
  jpeg_read_header(&info, TRUE);
  info.out_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  jpeg_start_decompress(&info);
  const std::size_t width = info.output_width;
  while (info.output_scanline < info.output_height) {
    jpeg_read_scanlines(&info, &stored, 1);
    if (channels == 1) grey_row(stored, width, rgb);
    if (channels == 4) cmyk_row(stored, width, rgb);
    rows.add(channels == 3 ? stored : rgb);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

}  // namespace

void decode_jpeg(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits, Workspace& space,
                 Rows& rows) {
  std::size_t end = 0, width = 0;
  int channels = 0;
  {
    const JpegMarkers markers = follow_markers(encoded, size, limits);
    end = markers.end, width = markers.width, channels = markers.components;
    rows.begin(markers.height, markers.width, orientation(markers.exif, markers.xmp));
  }
  space.row.resize(width * 7);
  Failure failure;
  failure.text[0] = failure.text[JMSG_LENGTH_MAX - 1] = '\0';
  if (!read_jpeg(encoded, end, channels, space.row.data(), space.row.data() + width * 4, rows, &failure)) {
    damaged(std::string("JPEG: ") + failure.text);
  }
}

}  // namespace samdeploy::core

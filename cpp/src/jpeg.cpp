// JPEG by libjpeg-turbo, with the settings that Pillow uses: accurate integer DCT, fancy upsampling.
#include <csetjmp>
#include <cstdio>  // jpeglib.h needs FILE
#include <cstring>

#include <jpeglib.h>

#include "error.hpp"
#include "picture.hpp"

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

// libjpeg would put an end marker where the file stops, and call a grey half of a picture a picture.
boolean no_more_bytes(j_decompress_ptr info) {
  auto* failure = reinterpret_cast<Failure*>(info->err);
  std::strncpy(failure->text, "the file ends before the picture", JMSG_LENGTH_MAX - 1);
  std::longjmp(failure->back, 1);
}

// 255 - a * b / 255, rounded as Pillow rounds it (MULDIV255); Adobe writes CMYK inverted.
std::uint8_t product(unsigned a, unsigned b) {
  const unsigned sum = a * b + 128;
  return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

void cmyk_row(const std::uint8_t* in, std::int64_t width, std::uint8_t* out) {
  for (std::int64_t x = 0; x < width; ++x, in += 4, out += 3) {
    const unsigned key = in[3];  // as stored: 255 minus the amount of black
    for (int channel = 0; channel < 3; ++channel) {
      out[channel] = static_cast<std::uint8_t>(key - product(255u - in[channel], key));
    }
  }
}

void grey_row(const std::uint8_t* in, std::int64_t width, std::uint8_t* out) {
  for (std::int64_t x = 0; x < width; ++x) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = in[x];
}

// Everything that a jump out of libjpeg must not skip lives in the caller.
struct Work {
  std::uint64_t most_pixels;
  Workspace* space;
  std::optional<std::string> exif;
  std::string xmp;
  std::optional<Error> refused;
};

void read_markers(const jpeg_decompress_struct& info, Work* work) {
  constexpr std::string_view kExif("Exif\0\0", 6), kXmp("http://ns.adobe.com/xap/1.0/\0", 29);
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (data.substr(0, kExif.size()) == kExif) {
      // A block of more than 64 KiB is continued in the next marker.
      if (work->exif) work->exif->append(data.substr(kExif.size()));
      else work->exif = std::string(data);
    } else if (data.substr(0, kXmp.size()) == kXmp) {
      work->xmp = std::string(data.substr(kXmp.size()));
    }
  }
}

// Sets what must be known before pixels are decoded; false: `work->refused` says why not.
bool plan(jpeg_decompress_struct* info, Work* work) {
  const int channels = info->num_components;
  if (info->data_precision != 8 || (channels != 1 && channels != 3 && channels != 4)) {
    work->refused.emplace(SAMDEPLOY_IMAGE, "JPEG of " + std::to_string(info->data_precision) + " bits and " +
                                               std::to_string(channels) + " channels; expected 8 bits, 1, 3 or 4");
    return false;
  }
  try {
    check_pixels(info->image_height, info->image_width, work->most_pixels);
    read_markers(*info, work);
    Picture& picture = work->space->picture;
    picture.height = info->image_height;
    picture.width = info->image_width;
    picture.pixels.resize(std::size_t{info->image_height} * info->image_width * 3);
    work->space->rows.resize(std::size_t{info->image_width} * 4);
  } catch (const Error& error) {
    work->refused.emplace(error);
    return false;
  } catch (const std::bad_alloc&) {
    work->refused.emplace(SAMDEPLOY_NO_MEMORY, "no memory for the picture");
    return false;
  }
  info->out_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
  info->dct_method = JDCT_ISLOW;
  info->do_fancy_upsampling = TRUE;
  return true;
}

// No object with a destructor may live in here: longjmp passes it by.
bool read_jpeg(const std::uint8_t* encoded, std::size_t size, Work* work, Failure* failure) {
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
  jpeg_save_markers(&info, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&info, TRUE);
  if (!plan(&info, work)) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_start_decompress(&info);
  Picture& picture = work->space->picture;
  const std::int64_t width = picture.width;
  while (info.output_scanline < info.output_height) {
    std::uint8_t* out = picture.pixels.data() + static_cast<std::size_t>(info.output_scanline) *
                                                    static_cast<std::size_t>(width) * 3;
    JSAMPROW row = info.out_color_space == JCS_RGB ? out : work->space->rows.data();
    jpeg_read_scanlines(&info, &row, 1);
    if (info.out_color_space == JCS_GRAYSCALE) grey_row(row, width, out);
    if (info.out_color_space == JCS_CMYK) cmyk_row(row, width, out);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

}  // namespace

const Picture& decode_jpeg(const std::uint8_t* encoded, std::size_t size, std::uint64_t most_pixels, Workspace& space) {
  Work work;
  work.most_pixels = most_pixels;
  work.space = &space;
  Failure failure;
  failure.text[0] = failure.text[JMSG_LENGTH_MAX - 1] = '\0';
  if (!read_jpeg(encoded, size, &work, &failure)) {
    if (work.refused) throw *work.refused;
    throw Error(SAMDEPLOY_IMAGE, std::string("damaged or truncated (JPEG: ") + failure.text +
                                     "); expected a complete picture");
  }
  return upright(space, orientation(work.exif, work.xmp));
}

}  // namespace samdeploy::core

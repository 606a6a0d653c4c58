// embed-plain GRAPH.onnx HEIGHT WIDTH SHORT BATCH THREADS SECONDS FILE...: JPEG bytes to class as one would write it
// by hand for one model: libjpeg-turbo, the resize of docs/bundle.md, OpenVINO.  It keeps its memory from image to
// image and hands OpenVINO the batch without a copy, and it leaves out what the library does besides: no hashes, no
// golden images, no PNG, no EXIF, no limit on pixels, no use by several threads.
// SHORT: the shorter side before the crop; 0: no crop.
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <iostream>

#include <jpeglib.h>

#include <openvino/openvino.hpp>

#include "measure.hpp"

namespace {

struct JpegError {
  jpeg_error_mgr manager;
  std::jmp_buf back;
};

void fail(j_common_ptr info) { std::longjmp(reinterpret_cast<JpegError*>(info->err)->back, 1); }
void be_silent(j_common_ptr, int) {}

// uint8 [height, width, 3].
struct Image {
  int height = 0, width = 0;
  Bytes pixels;
};

bool decode(const Bytes& jpeg, Image* image) {
  jpeg_decompress_struct info;
  JpegError error;
  info.err = jpeg_std_error(&error.manager);
  error.manager.error_exit = fail;
  error.manager.emit_message = be_silent;
  if (setjmp(error.back) != 0) {
    jpeg_destroy_decompress(&info);
    return false;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, jpeg.data(), jpeg.size());
  jpeg_read_header(&info, TRUE);
  info.out_color_space = JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&info);
  image->height = static_cast<int>(info.output_height);
  image->width = static_cast<int>(info.output_width);
  const std::size_t row_bytes = std::size_t{info.output_width} * 3;
  image->pixels.resize(row_bytes * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = image->pixels.data() + info.output_scanline * row_bytes;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  jpeg_destroy_decompress(&info);
  return true;
}

// Fixed-point weights of an antialiased bilinear resize of one axis.
struct Filter {
  std::vector<int> start, length, offset;
  std::vector<std::int32_t> weights;

  void make(int from, int to) {
    start.clear(), length.clear(), offset.clear(), weights.clear();
    const double scale = static_cast<double>(from) / to, support = std::max(scale, 1.0), inverse = 1.0 / support;
    std::vector<double> row;
    for (int i = 0; i < to; ++i) {
      const double centre = (i + 0.5) * scale;
      const int low = std::max(static_cast<int>(centre - support + 0.5), 0);
      const int high = std::min(static_cast<int>(centre + support + 0.5), from);
      row.clear();
      double sum = 0.0;
      for (int x = low; x < high; ++x) {
        const double distance = std::abs((x - centre + 0.5) * inverse);
        row.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
        sum += row.back();
      }
      start.push_back(low), length.push_back(high - low), offset.push_back(static_cast<int>(weights.size()));
      for (const double weight : row) weights.push_back(static_cast<std::int32_t>(0.5 + weight / sum * (1 << 22)));
    }
  }
};

class Resizer {
 public:
  // The whole of `image` to `height` x `width`, of which a window of `out_height` x `out_width` is kept.
  void run(const Image& image, int height, int width, int out_height, int out_width, std::uint8_t* out) {
    const int top = (height - out_height) / 2, left = (width - out_width) / 2;
    const std::size_t row_bytes = static_cast<std::size_t>(image.width) * 3;
    const std::uint8_t* source = image.pixels.data() + static_cast<std::size_t>(top) * row_bytes;
    if (height != image.height) {
      vertical_.make(image.height, height);
      between_.resize(static_cast<std::size_t>(out_height) * row_bytes);
      sums_.resize(row_bytes);
      for (int row = 0; row < out_height; ++row) {
        const std::size_t place = static_cast<std::size_t>(top + row);
        std::fill(sums_.begin(), sums_.end(), 1 << 21);
        for (int i = 0; i < vertical_.length[place]; ++i) {
          const std::int32_t weight = vertical_.weights[static_cast<std::size_t>(vertical_.offset[place] + i)];
          const std::uint8_t* in = image.pixels.data() + static_cast<std::size_t>(vertical_.start[place] + i) * row_bytes;
          for (std::size_t x = 0; x < row_bytes; ++x) sums_[x] += weight * in[x];
        }
        std::uint8_t* to = between_.data() + static_cast<std::size_t>(row) * row_bytes;
        for (std::size_t x = 0; x < row_bytes; ++x) to[x] = static_cast<std::uint8_t>(std::clamp(sums_[x] >> 22, 0, 255));
      }
      source = between_.data();
    }
    if (width != image.width) horizontal_.make(image.width, width);
    for (int row = 0; row < out_height; ++row, source += row_bytes) {
      if (width == image.width) {
        std::memcpy(out, source + left * 3, static_cast<std::size_t>(out_width) * 3);
        out += out_width * 3;
        continue;
      }
      for (std::size_t column = static_cast<std::size_t>(left); column < static_cast<std::size_t>(left + out_width); ++column) {
        std::int32_t red = 1 << 21, green = red, blue = red;
        const std::uint8_t* in = source + horizontal_.start[column] * 3;
        const std::int32_t* weight = &horizontal_.weights[static_cast<std::size_t>(horizontal_.offset[column])];
        for (int i = 0; i < horizontal_.length[column]; ++i, in += 3) {
          red += weight[i] * in[0], green += weight[i] * in[1], blue += weight[i] * in[2];
        }
        for (const std::int32_t sum : {red, green, blue}) *out++ = static_cast<std::uint8_t>(std::clamp(sum >> 22, 0, 255));
      }
    }
  }

 private:
  Filter vertical_, horizontal_;
  Bytes between_;
  std::vector<std::int32_t> sums_;
};

int run(int count, char** argument) {
  const int height = std::atoi(argument[2]), width = std::atoi(argument[3]), side = std::atoi(argument[4]);
  const std::size_t batch = static_cast<std::size_t>(std::atoi(argument[5]));
  const int threads = std::atoi(argument[6]);
  const std::vector<Bytes> files = read_files(argument + 8, argument + count);
  const Clock::time_point start = Clock::now();
  ov::Core core;
  ov::AnyMap config = {ov::hint::inference_precision(ov::element::f32),
                       ov::hint::execution_mode(ov::hint::ExecutionMode::ACCURACY),
                       ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
  if (threads > 0) config.insert(ov::inference_num_threads(threads));
  ov::CompiledModel compiled = core.compile_model(argument[1], "CPU", config);
  ov::InferRequest request = compiled.create_infer_request();
  ov::Tensor pixels(ov::element::u8, {batch, static_cast<std::size_t>(height), static_cast<std::size_t>(width), 3});
  request.set_input_tensor(pixels);
  const double open_ms = ms_since(start);
  const std::size_t size = static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3;
  Image image;
  Resizer resizer;
  const Program program = {
      "plain",
      [&](const Bytes& jpeg, std::size_t place) {
        if (!decode(jpeg, &image)) throw std::runtime_error("a damaged JPEG");
        int to_height = height, to_width = width;
        if (side != 0) {
          const bool is_wide = image.height <= image.width;
          to_height = is_wide ? side : side * image.height / image.width;
          to_width = is_wide ? side * image.width / image.height : side;
        }
        resizer.run(image, to_height, to_width, height, width, pixels.data<std::uint8_t>() + place * size);
      },
      [&](std::vector<std::size_t>* classes) {
        request.infer();
        const ov::Tensor answer = request.get_output_tensor();
        const std::size_t columns = answer.get_shape()[1];
        const float* row = answer.data<float>();
        for (std::size_t i = 0; i < batch; ++i, row += columns) {
          (*classes)[i] = static_cast<std::size_t>(std::max_element(row, row + columns) - row);
        }
      }};
  return measure(program, files, batch, threads, std::atof(argument[7]), open_ms);
}

}  // namespace

int main(int count, char** argument) {
  if (count < 9) {
    std::cerr << "usage: embed-plain GRAPH.onnx HEIGHT WIDTH SHORT BATCH THREADS SECONDS FILE...\n";
    return 2;
  }
  try {
    return run(count, argument);
  } catch (const std::exception& error) {
    std::cerr << "embed-plain: " << error.what() << "\n";
    return 1;
  }
}

// Pillow's antialiased bilinear filter (ImagingResample, src/libImaging/Resample.c) with its passes in a fixed order:
// a triangle whose support grows with the scale, 22-bit weights, one rounding to uint8 after each pass.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.hpp"
#include "picture.hpp"

namespace samdeploy::core {
namespace {

constexpr int kBits = 22;  // 32 minus 8 for the pixel minus 2 for the sum
constexpr std::int64_t kMostBetweenPasses = std::int64_t{1} << 27;

// What target pixels `first` to `first + count` of an axis are made of.
struct Weights {
  struct Span {
    std::int64_t start;  // first source pixel
    std::int64_t length;
    std::size_t offset;  // of its first weight
  };
  std::vector<Span> spans;
  std::vector<std::int32_t> values;
};

Weights weights(std::int64_t length, std::int64_t target, std::int64_t first, std::int64_t count) {
  const double scale = static_cast<double>(length) / static_cast<double>(target);
  const double support = std::max(scale, 1.0);
  const double inverse = 1.0 / support;
  Weights found;
  std::vector<double> row;
  for (std::int64_t i = first; i < first + count; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const std::int64_t start = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
    const std::int64_t end = std::min(static_cast<std::int64_t>(centre + support + 0.5), length);
    row.clear();
    double sum = 0.0;
    for (std::int64_t x = start; x < end; ++x) {
      const double distance = std::abs((static_cast<double>(x) - centre + 0.5) * inverse);
      row.push_back(distance < 1.0 ? 1.0 - distance : 0.0);
      sum += row.back();
    }
    found.spans.push_back({start, end - start, found.values.size()});
    for (const double weight : row) {
      found.values.push_back(static_cast<std::int32_t>(0.5 + (sum != 0.0 ? weight / sum : weight) * (1 << kBits)));
    }
  }
  return found;
}

std::uint8_t rounded(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// Rows `top` to `top + rows` of the picture brought to `target` rows: uint8 [rows, width, 3].
std::vector<std::uint8_t> vertical(const View& picture, std::int64_t target, std::int64_t top, std::int64_t rows) {
  const std::size_t row_bytes = static_cast<std::size_t>(picture.width) * 3;
  std::vector<std::uint8_t> found(static_cast<std::size_t>(rows) * row_bytes);
  const auto source = [&](std::int64_t row) { return picture.pixels + row * picture.stride; };
  if (target == picture.height) {
    for (std::int64_t row = 0; row < rows; ++row) {
      std::memcpy(found.data() + static_cast<std::size_t>(row) * row_bytes, source(top + row), row_bytes);
    }
    return found;
  }
  const Weights filter = weights(picture.height, target, top, rows);
  std::vector<std::int32_t> sums(row_bytes);
  std::uint8_t* out = found.data();
  for (const Weights::Span& span : filter.spans) {
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    for (std::int64_t i = 0; i < span.length; ++i) {
      const std::int32_t weight = filter.values[span.offset + static_cast<std::size_t>(i)];
      const std::uint8_t* in = source(span.start + i);
      for (std::size_t x = 0; x < row_bytes; ++x) sums[x] += weight * in[x];
    }
    for (std::size_t x = 0; x < row_bytes; ++x) out[x] = rounded(sums[x]);
    out += row_bytes;
  }
  return found;
}

// Columns `left` to `left + columns` of rows brought to `target` columns.
void horizontal(const std::uint8_t* in, std::int64_t rows, std::int64_t width, std::int64_t target, std::int64_t left,
                std::int64_t columns, std::uint8_t* out) {
  if (target == width) {
    for (std::int64_t row = 0; row < rows; ++row) {
      std::memcpy(out + row * columns * 3, in + (row * width + left) * 3, static_cast<std::size_t>(columns) * 3);
    }
    return;
  }
  const Weights filter = weights(width, target, left, columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::uint8_t* line = in + row * width * 3;
    for (const Weights::Span& span : filter.spans) {
      const std::int32_t* weight = filter.values.data() + span.offset;
      const std::uint8_t* pixel = line + span.start * 3;
      std::int32_t red = 1 << (kBits - 1), green = red, blue = red;
      for (std::int64_t i = 0; i < span.length; ++i, pixel += 3) {
        red += weight[i] * pixel[0];
        green += weight[i] * pixel[1];
        blue += weight[i] * pixel[2];
      }
      *out++ = rounded(red);
      *out++ = rounded(green);
      *out++ = rounded(blue);
    }
  }
}

}  // namespace

void resize(const View& picture, const Preprocessing& preprocessing, std::uint8_t* target) {
  std::int64_t height = preprocessing.height, width = preprocessing.width;
  if (preprocessing.resize_short != 0) {
    const std::int64_t side = preprocessing.resize_short;
    height = picture.height <= picture.width ? side : side * picture.height / picture.width;
    width = picture.height <= picture.width ? side * picture.width / picture.height : side;
  }
  // A picture of 1 x 1,000,000 pixels is a file of a few kilobytes, and between the passes it would fill gigabytes.
  if (height > kMostBetweenPasses / std::max(picture.width, width)) {
    throw Error(SAMDEPLOY_IMAGE_TOO_LARGE,
                std::to_string(picture.width) + "x" + std::to_string(picture.height) +
                    " pixels (width x height) are too long and thin to be brought to " + std::to_string(width) + "x" +
                    std::to_string(height) + "; cut the picture first");
  }
  // Only what the crop keeps is computed; margins are rounded down, as in Python.
  const std::int64_t top = (height - preprocessing.height) / 2, left = (width - preprocessing.width) / 2;
  const std::vector<std::uint8_t> between = vertical(picture, height, top, preprocessing.height);
  horizontal(between.data(), preprocessing.height, picture.width, width, left, preprocessing.width, target);
}

}  // namespace samdeploy::core

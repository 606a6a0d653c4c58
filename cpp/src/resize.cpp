// Pillow's antialiased bilinear filter (ImagingResample, src/libImaging/Resample.c) with its passes in a fixed order:
// a triangle whose support grows with the scale, 22-bit weights, one rounding to uint8 after each pass.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "error.hpp"
#include "picture.hpp"

// One function for every processor and one that is chosen at start where it has AVX2; sanitizers know no such choice.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(SAMDEPLOY_SANITIZED)
#define SAMDEPLOY_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define SAMDEPLOY_WIDE
#endif

namespace samdeploy::core {
namespace {

constexpr int kBits = 22;  // 32 minus 8 for the pixel minus 2 for the sum
constexpr std::int64_t kMostBetweenPasses = std::int64_t{1} << 27;
constexpr std::int64_t kLongestSource = std::int64_t{1} << 20;  // the weights of a longer one would fill gigabytes

// Of target pixels `first` to `first + count` of an axis that goes from `length` to `target` pixels.
void make_weights(std::int64_t length, std::int64_t target, std::int64_t first, std::int64_t count, Workspace& space,
                  Weights* found) {
  const double scale = static_cast<double>(length) / static_cast<double>(target);
  const double support = std::max(scale, 1.0);
  const double inverse = 1.0 / support;
  found->spans.clear();
  found->values.clear();
  std::vector<double>& row = space.row;
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
    found->spans.push_back({start, end - start, found->values.size()});
    for (const double weight : row) {
      found->values.push_back(static_cast<std::int32_t>(0.5 + (sum != 0.0 ? weight / sum : weight) * (1 << kBits)));
    }
  }
}

std::uint8_t rounded(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

// sums[x] += weight * in[x].  Integers only, so that every processor's version gives the same.
SAMDEPLOY_WIDE void add_row(const std::uint8_t* in, std::int32_t weight, std::size_t count, std::int32_t* sums) {
  for (std::size_t x = 0; x < count; ++x) sums[x] += weight * in[x];
}

SAMDEPLOY_WIDE void round_row(const std::int32_t* sums, std::size_t count, std::uint8_t* out) {
  for (std::size_t x = 0; x < count; ++x) out[x] = rounded(sums[x]);
}

// Columns `left` to `left + columns` of a picture whose rows were brought to those of `filter`; of rows `top` to
// `top + rows` where there is nothing to be resized: uint8 [rows, columns, 3] in `space.between`.
void vertical(const View& picture, const Weights* filter, std::int64_t top, std::int64_t rows, std::int64_t left,
              std::int64_t columns, Workspace& space) {
  const std::size_t row_bytes = static_cast<std::size_t>(columns) * 3;
  space.between.resize(static_cast<std::size_t>(rows) * row_bytes);
  std::uint8_t* out = space.between.data();
  const auto source = [&](std::int64_t row) { return picture.pixels + row * picture.stride + left * 3; };
  if (filter == nullptr) {
    for (std::int64_t row = 0; row < rows; ++row, out += row_bytes) std::memcpy(out, source(top + row), row_bytes);
    return;
  }
  space.sums.resize(row_bytes);
  for (const Weights::Span& span : filter->spans) {
    std::fill(space.sums.begin(), space.sums.end(), 1 << (kBits - 1));
    for (std::int64_t i = 0; i < span.length; ++i) {
      add_row(source(span.start + i), filter->values[span.offset + static_cast<std::size_t>(i)], row_bytes,
              space.sums.data());
    }
    round_row(space.sums.data(), row_bytes, out);
    out += row_bytes;
  }
}

// The columns of `filter` of rows whose first column is the picture's column `left`.
void horizontal(const std::uint8_t* in, std::int64_t rows, std::int64_t columns, const Weights& filter,
                std::int64_t left, std::uint8_t* out) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::uint8_t* line = in + row * columns * 3;
    for (const Weights::Span& span : filter.spans) {
      const std::int32_t* weight = filter.values.data() + span.offset;
      const std::uint8_t* pixel = line + (span.start - left) * 3;
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

void resize(const View& picture, const Preprocessing& preprocessing, std::uint8_t* target, Workspace& space) {
  std::int64_t height = preprocessing.height, width = preprocessing.width;
  if (preprocessing.resize_short != 0) {
    const std::int64_t side = preprocessing.resize_short;
    height = picture.height <= picture.width ? side : side * picture.height / picture.width;
    width = picture.height <= picture.width ? side * picture.width / picture.height : side;
  }
  // A picture of 1 x 1,000,000 pixels is a file of a few kilobytes, and between the passes it would fill gigabytes.
  const bool is_long = std::max(picture.width, picture.height) > kLongestSource;
  if (is_long || height > kMostBetweenPasses / std::max(picture.width, width)) {
    throw Error(SAMDEPLOY_IMAGE_TOO_LARGE,
                std::to_string(picture.width) + "x" + std::to_string(picture.height) +
                    " pixels (width x height) are too long and thin to be brought to " + std::to_string(width) + "x" +
                    std::to_string(height) + "; cut the picture first");
  }
  // Only what the crop keeps is computed; margins are rounded down, as in Python.
  const std::int64_t top = (height - preprocessing.height) / 2, rows = preprocessing.height;
  const std::int64_t left = (width - preprocessing.width) / 2, columns = preprocessing.width;
  const bool changes_rows = height != picture.height;
  if (changes_rows) make_weights(picture.height, height, top, rows, space, &space.vertical);
  const Weights* filter = changes_rows ? &space.vertical : nullptr;
  if (width == picture.width) {
    vertical(picture, filter, top, rows, left, columns, space);
    std::memcpy(target, space.between.data(), space.between.size());
    return;
  }
  make_weights(picture.width, width, left, columns, space, &space.horizontal);
  const Weights::Span &first = space.horizontal.spans.front(), &last = space.horizontal.spans.back();
  const std::int64_t width_used = last.start + last.length - first.start;  // both ends grow from span to span
  vertical(picture, filter, top, rows, first.start, width_used, space);
  horizontal(space.between.data(), rows, width_used, space.horizontal, first.start, target);
}

}  // namespace samdeploy::core

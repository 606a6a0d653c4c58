// Pillow's antialiased bilinear and bicubic filters (ImagingResample, src/libImaging/Resample.c) with their passes in a
// fixed order: a kernel whose support grows with the scale, 22-bit weights, one rounding to uint8 after each pass.
//
// Rows come in the file's order.  Where they are rows of the upright image too, each waits until a target row can be
// summed up, which is then resized along; where they are its columns, each is resized along, which is the vertical pass,
// and waits for its target column.  Sums of integers do not depend on their order, so mirrored axes cost nothing.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "image.hpp"

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

// An axis of the upright image: it goes from `length` to `scaled` pixels, of which `count` from `first` on are kept.
struct Axis {
  std::int64_t length, scaled, first, count;
};

// Kernels by the distance from the centre, which is never negative.
struct Triangle {
  static constexpr double kSupport = 1.0;
  static double at(double x) { return x < 1.0 ? 1.0 - x : 0.0; }
};
struct Cubic {  // R. Keys, 1981, with a = -0.5
  static constexpr double kSupport = 2.0;
  static double at(double x) {
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
  }
};

template <typename Kernel>
void make_weights(const Axis& axis, Workspace& space, Weights* found) {
  const double scale = static_cast<double>(axis.length) / static_cast<double>(axis.scaled);
  const double stretch = std::max(scale, 1.0), support = Kernel::kSupport * stretch, inverse = 1.0 / stretch;
  found->spans.clear();
  found->values.clear();
  std::vector<double>& weights = space.span;
  for (std::int64_t i = axis.first; i < axis.first + axis.count; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const std::int64_t start = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
    const std::int64_t end = std::min(static_cast<std::int64_t>(centre + support + 0.5), axis.length);
    weights.clear();
    double sum = 0.0;
    for (std::int64_t x = start; x < end; ++x) {
      weights.push_back(Kernel::at(std::abs((static_cast<double>(x) - centre + 0.5) * inverse)));
      sum += weights.back();
    }
    found->spans.push_back({start, end - start, found->values.size()});
    for (const double weight : weights) {
      const double share = (sum != 0.0 ? weight / sum : weight) * (1 << kBits);
      found->values.push_back(static_cast<std::int32_t>(share < 0.0 ? share - 0.5 : share + 0.5));
    }
  }
}

// For an axis that the file stores from its end.
void mirror(std::int64_t length, Weights* weights) {
  std::reverse(weights->values.begin(), weights->values.end());
  std::reverse(weights->spans.begin(), weights->spans.end());
  for (Weights::Span& span : weights->spans) {
    span.start = length - span.start - span.length;
    span.offset = weights->values.size() - span.offset - static_cast<std::size_t>(span.length);
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

// One row whose first pixel is that of the first span.
void resize_along(const std::uint8_t* row, const Weights& weights, std::uint8_t* out) {
  for (std::size_t i = 0; i < weights.spans.size(); ++i) {
    const Weights::Span& span = weights.spans[i];
    const std::int32_t* weight = weights.values.data() + span.offset;
    const std::uint8_t* pixel = row + (span.start - weights.begin()) * 3;
    std::int32_t red = 1 << (kBits - 1), green = red, blue = red;
    for (std::int64_t x = 0; x < span.length; ++x, pixel += 3) {
      red += weight[x] * pixel[0];
      green += weight[x] * pixel[1];
      blue += weight[x] * pixel[2];
    }
    std::uint8_t* target = out + weights.target(i) * 3;
    target[0] = rounded(red), target[1] = rounded(green), target[2] = rounded(blue);
  }
}

void refuse_thin(std::int64_t from_height, std::int64_t from_width, std::int64_t height, std::int64_t width) {
  const bool is_long = std::max(from_width, from_height) > kLongestSource;
  if (!is_long && height <= kMostBetweenPasses / std::max(from_width, width)) return;
  throw Error(SAMDEPLOY_IMAGE_TOO_LARGE,
              std::to_string(from_width) + "x" + std::to_string(from_height) +
                  " pixels (width x height) are too long and thin to be brought to " + std::to_string(width) + "x" +
                  std::to_string(height) + "; cut the image first");
}

}  // namespace

void Resize::begin(std::int64_t stored_height, std::int64_t stored_width, int orientation) {
  // By the table of EXIF 2.3, section 4.6.4.
  lies_ = orientation >= 5;
  const auto is_one_of = [orientation](std::string_view list) {
    return list.find(static_cast<char>('0' + orientation)) != std::string_view::npos;
  };
  const std::int64_t height = lies_ ? stored_width : stored_height, width = lies_ ? stored_height : stored_width;
  std::int64_t scaled_height = preprocessing_.height, scaled_width = preprocessing_.width;
  if (const std::int64_t side = preprocessing_.resize_short; side != 0) {
    scaled_height = height <= width ? side : side * height / width;
    scaled_width = height <= width ? side * width / height : side;
  }
  refuse_thin(height, width, scaled_height, scaled_width);
  // Only what the crop keeps is computed.
  const std::int64_t rows = preprocessing_.height, columns = preprocessing_.width;
  const Axis vertical = {height, scaled_height, margin(scaled_height - rows), rows};
  const Axis horizontal = {width, scaled_width, margin(scaled_width - columns), columns};
  Weights &across = space_.across, &along = space_.along;
  const auto make = preprocessing_.filter == Filter::bicubic ? make_weights<Cubic> : make_weights<Triangle>;
  make(lies_ ? horizontal : vertical, space_, &across);
  make(lies_ ? vertical : horizontal, space_, &along);
  across.is_mirrored = is_one_of("3467"), along.is_mirrored = is_one_of("2378");
  if (across.is_mirrored) mirror(stored_height, &across);
  if (along.is_mirrored) mirror(stored_width, &along);

  row_ = 0, next_ = 0, kept_ = 0;
  for (const Weights::Span& span : across.spans) kept_ = std::max(kept_, span.length);
  line_ = static_cast<std::size_t>(lies_ ? rows : along.end() - along.begin()) * 3;
  space_.kept.resize(static_cast<std::size_t>(kept_) * line_);
  space_.between.resize(line_);
  space_.sums.resize(line_);
}

std::int64_t Resize::margin(std::int64_t both) const {
  return preprocessing_.is_half_even ? (both + both / 2 % 2) / 2 : both / 2;
}

void Resize::add(const std::uint8_t* row) noexcept {
  const Weights &across = space_.across, &along = space_.along;
  const std::int64_t number = row_++;
  if (number < across.begin() || number >= across.end()) return;
  std::uint8_t* line = space_.kept.data() + static_cast<std::size_t>(number % kept_) * line_;
  const std::uint8_t* used = row + along.begin() * 3;
  if (lies_) resize_along(used, along, line);
  else std::memcpy(line, used, line_);
  for (; next_ < across.spans.size(); ++next_) {
    if (across.spans[next_].start + across.spans[next_].length > row_) return;
    finish(next_);
  }
}

void Resize::finish(std::size_t index) noexcept {
  const Weights::Span& span = space_.across.spans[index];
  std::int32_t* sums = space_.sums.data();
  std::fill_n(sums, line_, 1 << (kBits - 1));
  for (std::int64_t i = 0; i < span.length; ++i) {
    const std::uint8_t* line = space_.kept.data() + static_cast<std::size_t>((span.start + i) % kept_) * line_;
    add_row(line, space_.across.values[span.offset + static_cast<std::size_t>(i)], line_, sums);
  }
  std::uint8_t* between = space_.between.data();
  round_row(sums, line_, between);
  const std::size_t target = space_.across.target(index), columns = static_cast<std::size_t>(preprocessing_.width);
  if (!lies_) {
    resize_along(between, space_.along, target_ + target * columns * 3);
    return;
  }
  for (std::size_t row = 0; row < line_ / 3; ++row) {
    std::memcpy(target_ + (row * columns + target) * 3, between + row * 3, 3);
  }
}

}  // namespace samdeploy::core

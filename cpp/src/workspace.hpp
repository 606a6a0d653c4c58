// Memory that decoding and resizing keep from image to image, so that they ask for none once they are warm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace samdeploy::core {

// Bytes that are not set to zero before they are written: for a photograph that alone costs a tenth of its decoding.
class Buffer {
 public:
  // `size` bytes, whose old content may be lost.
  void resize(std::size_t size) {
    if (size > capacity_) {
      data_.reset();
      capacity_ = 0;
      data_.reset(new std::uint8_t[size]);
      capacity_ = size;
    }
    size_ = size;
  }
  std::uint8_t* data() { return data_.get(); }
  const std::uint8_t* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }

 private:
  std::unique_ptr<std::uint8_t[]> data_;
  std::size_t size_ = 0, capacity_ = 0;
};

// What the target pixels of one axis are made of.
struct Weights {
  struct Span {
    std::int64_t start;  // first source pixel
    std::int64_t length;
    std::size_t offset;  // of its first weight
  };
  std::vector<Span> spans;  // both ends grow from span to span
  std::vector<std::int32_t> values;
  bool is_mirrored = false;  // the first span is that of the last target pixel

  std::int64_t begin() const { return spans.front().start; }
  std::int64_t end() const { return spans.back().start + spans.back().length; }
  std::size_t target(std::size_t span) const { return is_mirrored ? spans.size() - 1 - span : span; }
  std::size_t bytes() const { return spans.capacity() * sizeof(Span) + values.capacity() * sizeof(std::int32_t); }
};

struct Workspace {
  Buffer encoded;             // an image's file
  Buffer row;                 // as the decoder gives it, and as RGB
  Buffer whole;               // uint8 [height, width, 3] of an interlaced image
  Buffer kept, between;       // rows that the resize still needs; one between its passes
  std::vector<std::int32_t> sums;
  std::vector<double> span;
  Weights across, along;      // the file's rows, and along them

  // What rare images needed is not kept for the next one.
  static constexpr std::size_t kMostKept = std::size_t{32} << 20;

  std::size_t bytes() const {
    std::size_t sum = across.bytes() + along.bytes() + sums.capacity() * sizeof(std::int32_t);
    sum += span.capacity() * sizeof(double);
    for (const Buffer* each : {&encoded, &row, &whole, &kept, &between}) sum += each->capacity();
    return sum;
  }
  void trim() {
    if (bytes() > kMostKept) *this = Workspace();
  }
};

}  // namespace samdeploy::core

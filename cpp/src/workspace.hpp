// Memory that decoding and resizing keep from picture to picture, so that they ask for none once they are warm.
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
  void free() {
    data_.reset();
    size_ = capacity_ = 0;
  }
  std::uint8_t* data() { return data_.get(); }
  const std::uint8_t* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::size_t capacity() const { return capacity_; }

 private:
  std::unique_ptr<std::uint8_t[]> data_;
  std::size_t size_ = 0, capacity_ = 0;
};

// uint8 [height, width, 3], RGB.
struct Picture {
  std::int64_t height = 0;
  std::int64_t width = 0;
  Buffer pixels;
};

// What the target pixels of one axis are made of.
struct Weights {
  struct Span {
    std::int64_t start;  // first source pixel
    std::int64_t length;
    std::size_t offset;  // of its first weight
  };
  std::vector<Span> spans;
  std::vector<std::int32_t> values;
};

struct Workspace {
  Buffer encoded;             // a picture's file
  Picture picture, turned;    // as stored, and upright
  Buffer rows;                // as the decoder gives them, where they are not RGB
  std::vector<std::uint8_t*> pointers;
  Buffer between;             // the passes of the resize
  std::vector<std::int32_t> sums;
  std::vector<double> row;
  Weights vertical, horizontal;

  // Pictures above this are rare, and what they needed is not kept for the next one.
  static constexpr std::size_t kMostKept = std::size_t{64} << 20;

  void trim() {
    for (Buffer* each : {&encoded, &picture.pixels, &turned.pixels, &rows, &between}) {
      if (each->capacity() > kMostKept) each->free();
    }
  }
};

}  // namespace samdeploy::core

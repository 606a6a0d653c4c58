#include "npy.hpp"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "error.hpp"

namespace samdeploy::core {
namespace {

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::uint64_t> shape;
};

// Reads the Python literal "{'descr': '|u1', 'fortran_order': False, 'shape': (16, 32, 32, 3), }" and no other.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  bool read(Header* header) {
    bool descr = false, order = false, shape = false;
    if (!take("{")) return false;
    while (!take("}")) {
      std::string key;
      if (!quoted(&key) || !take(":")) return false;
      if (key == "descr" && !descr) descr = quoted(&header->descr);
      else if (key == "fortran_order" && !order) order = boolean(&header->fortran_order);
      else if (key == "shape" && !shape) shape = tuple(&header->shape);
      else return false;
      if (!take(",") && rest_.substr(0, 1) != "}") return false;
    }
    skip();
    return rest_.empty() && descr && order && shape;
  }

 private:
  void skip() {
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_[0]))) rest_.remove_prefix(1);
  }
  bool take(std::string_view token) {
    skip();
    if (rest_.substr(0, token.size()) != token) return false;
    rest_.remove_prefix(token.size());
    skip();
    return true;
  }
  bool quoted(std::string* value) {
    if (!take("'")) return false;
    const std::size_t end = rest_.find('\'');
    if (end == std::string_view::npos) return false;
    *value = std::string(rest_.substr(0, end));
    rest_.remove_prefix(end);
    return take("'");
  }
  bool boolean(bool* value) {
    *value = take("True");
    return *value || take("False");
  }
  bool tuple(std::vector<std::uint64_t>* value) {
    if (!take("(")) return false;
    while (!take(")")) {
      std::size_t digits = 0;
      std::uint64_t number = 0;
      while (digits < rest_.size() && std::isdigit(static_cast<unsigned char>(rest_[digits]))) {
        number = number * 10 + static_cast<std::uint64_t>(rest_[digits++] - '0');
        if (digits > 18) return false;  // more would not fit 64 bits
      }
      if (digits == 0) return false;
      rest_.remove_prefix(digits);
      value->push_back(number);
      if (!take(",") && rest_.substr(0, 1) != ")") return false;
    }
    return true;
  }

  std::string_view rest_;
};

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text;
  for (const std::uint64_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "[" + text + "]";
}

}  // namespace

std::uint64_t check_npy(const Bytes& content, const std::string& descr, std::uint64_t item_size,
                        const std::vector<std::uint64_t>& shape, const std::string& name) {
  static constexpr char kMagic[] = "\x93NUMPY\x01\x00";  // with version 1.0; later ones are for names of fields
  if (content.size() < 10 || std::memcmp(content.data(), kMagic, 8) != 0) {
    throw Error(SAMDEPLOY_ARRAY, name + " is no .npy array of version 1.0");
  }
  const std::size_t length = content[8] + std::size_t{256} * content[9];
  Header header;
  if (content.size() < 10 + length ||
      !Reader({reinterpret_cast<const char*>(content.data()) + 10, length}).read(&header)) {
    throw Error(SAMDEPLOY_ARRAY, name + " is no .npy array: its header cannot be read");
  }
  const std::uint64_t rest = content.size() - 10 - length;
  const bool same = header.shape.size() == shape.size() + 1 &&
                    std::equal(shape.begin(), shape.end(), header.shape.begin() + 1);
  if (header.descr != descr || header.fortran_order || !same) {
    throw Error(SAMDEPLOY_ARRAY, name + " is " + header.descr.substr(0, 20) + " " + shape_text(header.shape) +
                                     (header.fortran_order ? " in Fortran order" : "") + ", expected " + descr +
                                     " [n, ...] with the rest " + shape_text(shape) + " in C order");
  }
  std::uint64_t row = item_size;
  for (const std::uint64_t side : shape) row *= side;  // at most 2**17 * 2**17 * 12, see kLongestSide
  if (row == 0 || rest % row != 0 || rest / row != header.shape[0]) {
    throw Error(SAMDEPLOY_ARRAY, name + " has " + std::to_string(rest) + " bytes of numbers, its shape " +
                                     shape_text(header.shape) + " asks for another count");
  }
  return header.shape[0];
}

}  // namespace samdeploy::core

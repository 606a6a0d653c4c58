// The one exception inside the library; c_api.cpp turns it into a status and a sentence.
#pragma once

#include <stdexcept>
#include <string>

#include "samdeploy.h"

namespace samdeploy::core {

// Thrown by a runtime's library too (backend.hpp), hence its name must be one and the same in both.
class __attribute__((visibility("default"))) Error : public std::runtime_error {
 public:
  Error(samdeploy_status status, const std::string& text) : std::runtime_error(plain(text)), status_(status) {}
  samdeploy_status status() const noexcept { return status_; }

 private:
  // A hostile name must neither end the sentence for a reader in C nor steer a terminal.
  static std::string plain(std::string text) {
    for (char& c : text) {
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    }
    return text;
  }

  samdeploy_status status_;
};

// What is said where no part knew better, in the words of Python's command line.
constexpr const char* kMemoryIsFull = "the memory is full; end other programs, or take smaller batches or images";

}  // namespace samdeploy::core

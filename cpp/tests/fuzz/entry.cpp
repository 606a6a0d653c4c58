// What libFuzzer and driver.cpp call; SAMDEPLOY_FUZZ names this program's target in targets.cpp.
#include <cstdlib>

#include "error.hpp"

void SAMDEPLOY_FUZZ(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    SAMDEPLOY_FUZZ(data, size);
  } catch (const samdeploy::core::Error& error) {
    if (error.status() == SAMDEPLOY_INTERNAL || *error.what() == '\0') std::abort();
  }
  return 0;
}

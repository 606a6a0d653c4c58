// .npy arrays, format version 1.0, in C order: the golden images and answers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "files.hpp"

namespace samdeploy::core {

// Checks that `content` is an array [n, *shape] of `descr` ("|u1" or "<f4") and nothing more.
// Returns n; the numbers are the last n * product(shape) * item_size bytes of `content`.
// Throws ARRAY; `name` names the file in messages.
std::uint64_t check_npy(const Bytes& content, const std::string& descr, std::uint64_t item_size,
                        const std::vector<std::uint64_t>& shape, const std::string& name);

}  // namespace samdeploy::core

// A file in memory that nobody can change, not even its owner; it has a path while the object lives.
//
// Runtimes are given a graph's verified bytes like this, and not as bytes: what a graph without a path names as further
// files of weights they read from the working directory, or from anywhere, and nobody has verified those.  Beside this
// file there are none.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "error.hpp"
#include "file_size_signal.hpp"
#include "files.hpp"

namespace samdeploy::core {

class SealedFile {
 public:
  // Throws UNAVAILABLE: no memory, a limit on file sizes, or a kernel without such files.
  explicit SealedFile(const Bytes& content) : descriptor_(memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    if (descriptor_ < 0) fail();
    const NoFileSizeSignal guard;
    for (std::size_t done = 0; done < content.size();) {
      const ssize_t written = write(descriptor_, content.data() + done, content.size() - done);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail();
      done += static_cast<std::size_t>(written);
    }
    // The kernel refuses with EBUSY while it holds one of the pages for a moment itself.
    int tries_left = 20;
    while (fcntl(descriptor_, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
      if (errno != EBUSY || --tries_left == 0) fail();
      usleep(50'000);
    }
  }
  ~SealedFile() { close(descriptor_); }
  SealedFile(const SealedFile&) = delete;
  SealedFile& operator=(const SealedFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  [[noreturn]] void fail() const {
    const std::string reason = std::strerror(errno);
    const char* cure = errno == EFBIG ? "raise the limit on file sizes, which counts here too: ulimit -f" : "free some of it";
    if (descriptor_ >= 0) close(descriptor_);
    throw Error(SAMDEPLOY_UNAVAILABLE, "the graph cannot be held in memory (" + reason + "); " + cure);
  }

  int descriptor_;
};

}  // namespace samdeploy::core

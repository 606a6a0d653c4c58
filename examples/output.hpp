// What a program prints must arrive: a full disk shows only once the buffer is written.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

// stdout takes nothing more; the words of `samdeploy` for it.
class OutputError : public std::runtime_error {
 public:
  explicit OutputError(int number) : std::runtime_error(text(number)) {}

 private:
  static std::string text(int number) {
    const char* cure = number == ENOSPC  ? "; free some space, or name another place"
                       : number == EBADF ? "; it is closed: send it to a file, a pipe or a terminal"
                                         : "";
    return std::string("output: ") + std::strerror(number) + cure;
  }
};

// To be called before anything is opened: the next file would take the number of an stdout that is closed.
inline void check_output() {
  if (::fcntl(STDOUT_FILENO, F_GETFD) < 0) throw OutputError(errno);
}

inline void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) throw OutputError(errno);
}

inline void flush_output() {
  if (std::fflush(stdout) != 0) throw OutputError(errno);
}

// Writing beyond the limit on file sizes (`ulimit -f`) sends SIGXFSZ, which ends a process that does not expect it.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <time.h>

namespace samdeploy::core {

// While it lives, this thread's writes fail with EFBIG instead.  Other threads, and the process's handler, stay as they
// are.
class NoFileSizeSignal {
 public:
  NoFileSizeSignal() {
    sigemptyset(&own_);
    sigaddset(&own_, SIGXFSZ);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGXFSZ) == 1;
    pthread_sigmask(SIG_BLOCK, &own_, &before_);
  }
  ~NoFileSizeSignal() {
    const timespec now = {};
    if (!was_pending_) sigtimedwait(&own_, nullptr, &now);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoFileSizeSignal(const NoFileSizeSignal&) = delete;
  NoFileSizeSignal& operator=(const NoFileSizeSignal&) = delete;

 private:
  sigset_t own_, before_;
  bool was_pending_ = false;
};

}  // namespace samdeploy::core

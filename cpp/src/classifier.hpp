// What a handle of samdeploy.h stands for, and the table of those that are open.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "image.hpp"
#include "samdeploy.h"
#include "session.hpp"
#include "workspace.hpp"

namespace samdeploy::core {

struct Classifier {
  Manifest manifest;
  Options options;
  ImageLimits limits;
  std::unique_ptr<Session> session;

  std::size_t pixel_bytes() const {
    return static_cast<std::size_t>(manifest.preprocessing.height * manifest.preprocessing.width * 3);
  }
};

// Memory for one image, taken from those that lie idle and put back at the end: as many are kept as threads ever
// prepared images at the same time.
class IdleWorkspaces {
 public:
  class Loan {
   public:
    explicit Loan(IdleWorkspaces& idle);
    ~Loan();
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    Workspace& operator*() const { return *space_; }

   private:
    IdleWorkspaces& idle_;
    std::unique_ptr<Workspace> space_;
  };

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> spaces_;
};

struct OpenClassifier : Classifier {
  IdleWorkspaces idle;
};

// A handle is a number in a pointer's clothes, and no number is given twice: one that was closed, or that was opened
// by the parent of this process, is told from an open one without touching memory that may be gone.
samdeploy_classifier* add_handle(std::shared_ptr<OpenClassifier> classifier);
// Throws ARGUMENT: NULL.  CLOSED: closed, or never opened.  FORKED: opened before the fork of this process.
std::shared_ptr<OpenClassifier> find_handle(const samdeploy_classifier* handle);
// Does nothing where there is none of that number.  Runs that are under way end first: they hold it, too.
void drop_handle(const samdeploy_classifier* handle);
// Throws FORKED: this process was forked from one in which a runtime had been started.
void check_may_open();
// To be said before a runtime is started.
void note_runtime_started();

}  // namespace samdeploy::core

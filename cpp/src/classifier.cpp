#include "classifier.hpp"

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <utility>

#include "error.hpp"

namespace samdeploy::core {
namespace {

struct Table {
  std::mutex mutex;
  std::map<std::uintptr_t, std::shared_ptr<OpenClassifier>> open;
};

// Never destroyed: at the end of a process a runtime's threads may be gone already.
std::atomic<Table*> table{nullptr};
std::atomic<std::uintptr_t> next_number{1};
std::atomic<std::uintptr_t> first_of_process{1};
std::atomic<bool> runtime_started{false}, started_before_fork{false};

// In the child: threads of the parent that held the lock, or that compute, do not exist here.
void after_fork() {
  table.store(nullptr);
  first_of_process.store(next_number.load());
  if (runtime_started.load()) started_before_fork.store(true);
}

// Handles lie 16 apart, as memory would.
std::uintptr_t number_of(const samdeploy_classifier* handle) { return reinterpret_cast<std::uintptr_t>(handle) / 16; }

Table& the_table() {
  static const int watched = pthread_atfork(nullptr, nullptr, after_fork);
  static_cast<void>(watched);
  Table* found = table.load();
  if (found != nullptr) return *found;
  auto made = std::make_unique<Table>();
  return table.compare_exchange_strong(found, made.get()) ? *made.release() : *found;
}

}  // namespace

IdleWorkspaces::Loan::Loan(IdleWorkspaces& idle) : idle_(idle) {
  {
    const std::lock_guard<std::mutex> lock(idle_.mutex_);
    if (!idle_.spaces_.empty()) {
      space_ = std::move(idle_.spaces_.back());
      idle_.spaces_.pop_back();
    }
  }
  if (!space_) space_ = std::make_unique<Workspace>();
}

IdleWorkspaces::Loan::~Loan() {
  space_->trim();
  try {
    const std::lock_guard<std::mutex> lock(idle_.mutex_);
    idle_.spaces_.push_back(std::move(space_));
  } catch (...) {  // no memory for the list: this one is freed
  }
}

samdeploy_classifier* add_handle(std::shared_ptr<OpenClassifier> classifier) {
  Table& all = the_table();
  const std::uintptr_t number = next_number.fetch_add(1);
  const std::lock_guard<std::mutex> lock(all.mutex);
  all.open.emplace(number, std::move(classifier));
  return reinterpret_cast<samdeploy_classifier*>(number * 16);
}

std::shared_ptr<OpenClassifier> find_handle(const samdeploy_classifier* handle) {
  if (handle == nullptr) throw Error(SAMDEPLOY_ARGUMENT, "classifier: NULL found, one that samdeploy_open gave expected");
  const std::uintptr_t number = number_of(handle);
  if (number < first_of_process.load() && number != 0) {
    throw Error(SAMDEPLOY_FORKED, "the classifier was opened before this process was forked, and the threads that "
                                  "compute for it stayed behind; start the process first and open the bundle in it");
  }
  Table& all = the_table();
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.open.find(number);
  if (found == all.open.end()) {
    throw Error(SAMDEPLOY_CLOSED, "the classifier is closed, or samdeploy_open never gave it; open the bundle again");
  }
  return found->second;
}

void drop_handle(const samdeploy_classifier* handle) {
  if (handle == nullptr || number_of(handle) < first_of_process.load()) return;
  Table& all = the_table();
  std::shared_ptr<OpenClassifier> last;  // destroyed after the lock is free
  const std::lock_guard<std::mutex> lock(all.mutex);
  const auto found = all.open.find(number_of(handle));
  if (found == all.open.end()) return;
  last = std::move(found->second);
  all.open.erase(found);
}

void check_may_open() {
  the_table();
  if (started_before_fork.load()) {
    throw Error(SAMDEPLOY_FORKED, "this process was forked from one that had opened a bundle, and a runtime does not "
                                  "start twice after that; fork first and open the bundle then, or start a new program");
  }
}

void note_runtime_started() { runtime_started.store(true); }

}  // namespace samdeploy::core

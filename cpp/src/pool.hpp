// A fixed number of things that threads borrow; who finds none waits.  Lending reserves no memory.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace samdeploy::core {

template <typename Item>
class Pool {
 public:
  explicit Pool(std::size_t count) : items_(count) {
    for (Item& item : items_) free_.push_back(&item);
  }

  // Given back when it goes out of scope.
  class Loan {
   public:
    explicit Loan(Pool& pool) : pool_(pool) {
      std::unique_lock<std::mutex> lock(pool_.mutex_);
      pool_.one_is_free_.wait(lock, [this] { return !pool_.free_.empty(); });
      item_ = pool_.free_.back();
      pool_.free_.pop_back();
    }
    ~Loan() {
      {
        const std::lock_guard<std::mutex> lock(pool_.mutex_);
        pool_.free_.push_back(item_);  // within the capacity it had at the start
      }
      pool_.one_is_free_.notify_one();
    }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    Item* operator->() const { return item_; }
    Item& operator*() const { return *item_; }

   private:
    Pool& pool_;
    Item* item_ = nullptr;
  };

  Loan borrow() { return Loan(*this); }
  // To set them up, before anyone borrows.
  std::vector<Item>& all() { return items_; }

 private:
  std::vector<Item> items_;
  std::vector<Item*> free_;
  std::mutex mutex_;
  std::condition_variable one_is_free_;
};

}  // namespace samdeploy::core

// A bounded queue between threads: who finds it full or empty waits; closing it lets everyone go.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

template <typename Item>
class Queue {
 public:
  explicit Queue(std::size_t most) : most_(most) {}

  // False: the queue was closed, and the item was not taken.
  bool push(Item item) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || items_.size() < most_; });
    if (closed_) return false;
    items_.push_back(std::move(item));
    changed_.notify_all();
    return true;
  }

  // Nothing: the queue is closed and empty.
  std::optional<Item> pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return closed_ || !items_.empty(); });
    if (items_.empty()) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    changed_.notify_all();
    return item;
  }

  // Up to `most` items, and at least one; fewer than `most` only when no more come (`whole`) or none is there.
  // Empty: the queue is closed and empty.
  std::vector<Item> pop_some(std::size_t most, bool whole) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || items_.size() >= (whole ? most : 1); });
    std::vector<Item> taken;
    while (!items_.empty() && taken.size() < most) {
      taken.push_back(std::move(items_.front()));
      items_.pop_front();
    }
    changed_.notify_all();
    return taken;
  }

  // What is in it can still be taken.
  void close() {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }

 private:
  const std::size_t most_;
  std::deque<Item> items_;
  bool closed_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
};

// What both programs do alike: read the files, go over them for some seconds, print one JSON line.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

inline double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

inline std::vector<Bytes> read_files(char** first, char** last) {
  std::vector<Bytes> found;
  for (; first != last; ++first) {
    std::ifstream file(*first, std::ios::binary);
    found.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    if (found.back().empty()) throw std::runtime_error(std::string(*first) + ": cannot be read");
  }
  return found;
}

inline long peak_memory_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, 6, "VmHWM:") == 0) return std::atol(line.c_str() + 6) / 1024;
  }
  return 0;
}

// What a program brings: one JPEG -> one image of the batch; the batch -> a class for each.
struct Program {
  std::string name;
  std::function<void(const Bytes& jpeg, std::size_t place)> prepare;
  std::function<void(std::vector<std::size_t>* classes)> run;
};

inline int measure(const Program& program, const std::vector<Bytes>& files, std::size_t batch, int threads,
                   double seconds, double open_ms) {
  std::vector<std::size_t> classes, found(batch);
  std::vector<double> batches_ms;
  double prepare_ms = 0.0, run_ms = 0.0, first_ms = 0.0;
  const auto pass = [&](bool is_measured) {
    for (std::size_t at = 0; at + batch <= files.size(); at += batch) {
      const Clock::time_point start = Clock::now();
      for (std::size_t i = 0; i < batch; ++i) program.prepare(files[at + i], i);
      const double prepared = ms_since(start);
      program.run(&found);
      const double all = ms_since(start);
      if (first_ms == 0.0) first_ms = all;
      if (is_measured) {
        prepare_ms += prepared;
        run_ms += all - prepared;
        batches_ms.push_back(all);
      } else {
        classes.insert(classes.end(), found.begin(), found.end());
      }
    }
  };
  if (files.size() < batch) throw std::runtime_error("fewer files than one batch");
  pass(false);
  const Clock::time_point start = Clock::now();
  do pass(true);
  while (ms_since(start) < seconds * 1000.0);
  const double elapsed = ms_since(start) / 1000.0;
  const double count = static_cast<double>(batches_ms.size()), images = count * static_cast<double>(batch);
  std::sort(batches_ms.begin(), batches_ms.end());
  const auto quantile = [&](double share) { return batches_ms[static_cast<std::size_t>(share * (count - 1.0))]; };
  std::printf("{\"program\": \"%s\", \"batch\": %zu, \"threads\": %d, \"images\": %.0f, \"seconds\": %.4f, "
              "\"images_per_s\": %.2f, \"open_ms\": %.1f, \"first_ms\": %.2f, \"prepare_ms\": %.4f, \"run_ms\": %.4f, "
              "\"p50_ms\": %.4f, \"p99_ms\": %.4f, \"peak_rss_mib\": %ld, \"classes\": [",
              program.name.c_str(), batch, threads, images, elapsed, images / elapsed, open_ms, first_ms,
              prepare_ms / images, run_ms / count, quantile(0.5), quantile(0.99), peak_memory_mib());
  for (std::size_t i = 0; i < classes.size(); ++i) std::printf("%s%zu", i ? ", " : "", classes[i]);
  std::printf("]}\n");
  return 0;
}

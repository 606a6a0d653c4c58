// samdeploy-worker BUNDLE FOLDER: classifies every JPEG and PNG of a folder with several threads.
// samdeploy-worker BUNDLE --frames 640x480: the same for raw RGB frames on stdin, as a camera or
//   ffmpeg -i VIDEO -f rawvideo -pix_fmt rgb24 -  gives them.
//
//   decoders (decode, resize) -> bounded queue -> one thread that runs batches and prints
//
// What it prints, and its exit codes: kHelp below.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "output.hpp"
#include "queue.hpp"
#include "samdeploy.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kUsage =
    "usage: samdeploy-worker BUNDLE (FOLDER | --frames WIDTHxHEIGHT) [--decoders N] [--batch N] [--loops N] "
    "[--backend NAME] [--json]\n";
constexpr const char* kHelp =
    "Classifies every JPEG and PNG of a folder, or raw RGB frames on stdin, with several threads.\n"
    "One line per image on stdout: name, class, probability and, where the bundle has a threshold and the answer is\n"
    "below it, \"rejected\", with a tab between them; in the first two a backslash, tab, newline and carriage return\n"
    "are written \\\\ \\t \\n \\r, other control characters \\x1b.\n"
    "Figures at the end on stderr; with --json the figures alone, on stdout, as one JSON object.\n"
    "Exit code: 0; 1 if an image could not be read; 2 for wrong arguments, a bad bundle, or a full disk.\n";

struct Arguments {
  std::string bundle, folder, backend = "openvino";
  std::uint32_t frame_width = 0, frame_height = 0;
  std::size_t decoders = 2, batch = 8, loops = 1;
  bool json = false, help = false;
};

struct Job {
  std::string name;
  std::vector<std::uint8_t> frame;  // of a camera; empty: `name` is a file
  Clock::time_point start;
};

struct Prepared {
  std::string name;
  std::vector<std::uint8_t> pixels;
  Clock::time_point start;
};

std::size_t number(const std::string& text) {
  const bool is_number = !text.empty() && text.size() < 7 && text.find_first_not_of("0123456789") == std::string::npos;
  const std::size_t value = is_number ? std::stoul(text) : 0;
  if (value < 1 || value > 100000) throw std::invalid_argument("'" + text + "' found, 1 to 100000 expected");
  return value;
}

Arguments parse(int count, char** argument) {
  Arguments found;
  std::vector<std::string> names;
  for (int i = 1; i < count; ++i) {
    const std::string word = argument[i];
    const auto value = [&] {
      if (i + 1 == count) throw std::invalid_argument(word + " needs a value");
      return std::string(argument[++i]);
    };
    if (word == "--help" || word == "-h") {
      found.help = true;
      return found;
    }
    if (word == "--json") found.json = true;
    else if (word == "--decoders") found.decoders = number(value());
    else if (word == "--batch") found.batch = number(value());
    else if (word == "--loops") found.loops = number(value());
    else if (word == "--backend") found.backend = value();
    else if (word == "--frames") {
      const std::string size = value();
      const std::size_t cross = size.find('x');
      if (cross == std::string::npos) throw std::invalid_argument("--frames '" + size + "' found, 640x480 expected");
      found.frame_width = static_cast<std::uint32_t>(number(size.substr(0, cross)));
      found.frame_height = static_cast<std::uint32_t>(number(size.substr(cross + 1)));
    } else if (word.compare(0, 2, "--") == 0) throw std::invalid_argument("unknown option " + word);
    else names.push_back(word);
  }
  const bool is_camera = found.frame_width != 0;
  if (names.size() != (is_camera ? 1u : 2u)) throw std::invalid_argument("a bundle and a folder (or --frames) expected");
  found.bundle = names[0];
  if (!is_camera) found.folder = names[1];
  return found;
}

std::vector<std::string> image_files(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) throw std::invalid_argument(folder + ": no such folder");
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    std::string ending = entry.path().extension().string();
    for (char& c : ending) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (ending == ".jpg" || ending == ".jpeg" || ending == ".png") found.push_back(entry.path().string());
  }
  std::sort(found.begin(), found.end());
  if (found.empty()) throw std::invalid_argument(folder + ": no JPEG or PNG in this folder");
  return found;
}

// A name as one field of a line: what would end the field or the line, or steer a terminal, is escaped.
std::string escaped(const std::string& text) {
  std::string field;
  for (const char c : text) {
    char code[8];
    if (c == '\\') field += "\\\\";
    else if (c == '\t') field += "\\t";
    else if (c == '\n') field += "\\n";
    else if (c == '\r') field += "\\r";
    else if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) field += c;
    else {
      std::snprintf(code, sizeof code, "\\x%02x", static_cast<unsigned char>(c));
      field += code;
    }
  }
  return field;
}

long peak_memory_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, 6, "VmHWM:") == 0) return std::atol(line.c_str() + 6) / 1024;
  }
  return 0;
}

class Worker {
 public:
  Worker(const Arguments& arguments, const samdeploy::Classifier& classifier)
      : arguments_(arguments), classifier_(classifier), jobs_(2 * arguments.decoders), prepared_(2 * arguments.batch) {}

  // Threads that end with an exception are no use to the others: the first one is told at the end.
  void run() {
    const Clock::time_point start = Clock::now();
    std::vector<std::thread> decoders;
    std::atomic<std::size_t> left{arguments_.decoders};
    for (std::size_t i = 0; i < arguments_.decoders; ++i) {
      decoders.emplace_back([&] {
        guard([&] { decode(); });
        if (--left == 0) prepared_.close();
      });
    }
    std::thread runner([&] { guard([&] { infer(); }); });
    guard([&] { arguments_.folder.empty() ? feed_frames() : feed_files(); });
    jobs_.close();
    for (std::thread& each : decoders) each.join();
    runner.join();
    seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
    if (error_) std::rethrow_exception(error_);
  }

  void report() {
    std::sort(latencies_ms_.begin(), latencies_ms_.end());
    const std::size_t images = latencies_ms_.size();
    const auto quantile = [&](double share) {
      return images == 0 ? 0.0 : latencies_ms_[static_cast<std::size_t>(share * static_cast<double>(images - 1))];
    };
    char text[512];
    std::snprintf(text, sizeof text,
                 "{\"program\": \"worker\", \"backend\": \"%s\", \"images\": %zu, \"failed\": %zu, \"seconds\": %.3f, "
                 "\"images_per_s\": %.1f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, \"batch\": %zu, \"decoders\": %zu, "
                 "\"peak_rss_mib\": %ld}\n",
                 arguments_.backend.c_str(), images, failed_.load(), seconds_, static_cast<double>(images) / seconds_,
                 quantile(0.5), quantile(0.99), arguments_.batch, arguments_.decoders, peak_memory_mib());
    if (arguments_.json) print(text);
    flush_output();
    if (!arguments_.json) std::fputs(text, stderr);
  }

  bool all_read() const { return failed_ == 0; }

 private:
  template <typename Work>
  void guard(const Work& work) {
    try {
      work();
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
      jobs_.close();
      prepared_.close();
    }
  }

  void feed_files() {
    const std::vector<std::string> files = image_files(arguments_.folder);
    for (std::size_t loop = 0; loop < arguments_.loops; ++loop) {
      for (const std::string& file : files) {
        if (!jobs_.push({file, {}, Clock::now()})) return;
      }
    }
  }

  void feed_frames() {
    const std::size_t size = std::size_t{arguments_.frame_width} * arguments_.frame_height * 3;
    for (std::size_t index = 0;; ++index) {
      Job job{"frame " + std::to_string(index), std::vector<std::uint8_t>(size), {}};
      const std::size_t found = std::fread(job.frame.data(), 1, size, stdin);
      if (found != 0 && found != size) throw std::runtime_error(job.name + " ends early");
      job.start = Clock::now();
      if (found == 0 || !jobs_.push(std::move(job))) return;
    }
  }

  void decode() {
    while (std::optional<Job> job = jobs_.pop()) {
      try {
        std::vector<std::uint8_t> pixels =
            job->frame.empty() ? classifier_.prepare(job->name)
                               : classifier_.prepare_rgb(job->frame.data(), arguments_.frame_height,
                                                         arguments_.frame_width);
        if (!prepared_.push({std::move(job->name), std::move(pixels), job->start})) return;
      } catch (const samdeploy::Error& error) {
        if (error.status() != SAMDEPLOY_IMAGE && error.status() != SAMDEPLOY_IMAGE_TOO_LARGE) throw;
        ++failed_;
        std::fprintf(stderr, "samdeploy-worker: %s\n", error.what());
      }
    }
  }

  void infer() {
    const std::size_t size = classifier_.height() * classifier_.width() * 3, classes = classifier_.classes().size();
    std::vector<std::uint8_t> pixels(arguments_.batch * size);
    std::vector<float> logits(arguments_.batch * classes);
    // Files wait for a whole batch, which is faster; a camera's frame waits for nothing.
    const bool whole = !arguments_.folder.empty();
    for (;;) {
      const std::vector<Prepared> batch = prepared_.pop_some(arguments_.batch, whole);
      if (batch.empty()) return;
      for (std::size_t i = 0; i < batch.size(); ++i) {
        std::copy(batch[i].pixels.begin(), batch[i].pixels.end(), pixels.begin() + static_cast<std::ptrdiff_t>(i * size));
      }
      classifier_.run(pixels.data(), batch.size(), logits.data());
      const Clock::time_point now = Clock::now();
      for (std::size_t i = 0; i < batch.size(); ++i) {
        answer(batch[i].name, &logits[i * classes]);
        latencies_ms_.push_back(std::chrono::duration<double, std::milli>(now - batch[i].start).count());
      }
    }
  }

  void answer(const std::string& name, const float* logits) {
    try {
      const samdeploy_score best = classifier_.rank(logits, 1).front();
      if (arguments_.json) return;
      char probability[16];
      std::snprintf(probability, sizeof probability, "%.4f", best.probability);
      print(escaped(name) + "\t" + escaped(classifier_.classes()[best.index]) + "\t" + probability +
            (classifier_.rejects(best.probability) ? "\trejected\n" : "\n"));
    } catch (const samdeploy::Error& error) {
      if (error.status() != SAMDEPLOY_NOT_FINITE) throw;
      ++failed_;
      std::fprintf(stderr, "samdeploy-worker: %s: %s\n", escaped(name).c_str(), error.what());
    }
  }

  const Arguments& arguments_;
  const samdeploy::Classifier& classifier_;
  Queue<Job> jobs_;
  Queue<Prepared> prepared_;
  std::vector<double> latencies_ms_;  // from the moment an image was named, or a frame was there
  std::atomic<std::size_t> failed_{0};
  double seconds_ = 0.0;
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

int main(int count, char** argument) {
  try {
    check_output();
    const Arguments arguments = parse(count, argument);
    if (arguments.help) {
      print(std::string(kUsage) + kHelp);
      flush_output();
      return 0;
    }
    samdeploy::Options options;
    options.backend = arguments.backend;
    const samdeploy::Classifier classifier = samdeploy::Classifier::open(arguments.bundle, options);
    Worker worker(arguments, classifier);
    worker.run();
    worker.report();
    return worker.all_read() ? 0 : 1;
  } catch (const OutputError& error) {
    std::cerr << "samdeploy-worker: " << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "samdeploy-worker: " << error.what() << "\n" << kUsage;
    return 2;
  }
}

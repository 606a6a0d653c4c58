// For compilers without libFuzzer: FOLDER SECONDS SEED runs every file of FOLDER, then changed copies of them, until the
// time is over.  It learns nothing from coverage, so clang's build finds more; both take the same targets.
// Prints "executions N"; a defect ends the process, and the last input lies in ./crash-driver.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Bytes = std::vector<std::uint8_t>;

const Bytes* running = nullptr;

void keep_input() {
  if (running == nullptr) return;
  const int file = open("crash-driver", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (file >= 0 && write(file, running->data(), running->size()) >= 0) close(file);
}

void on_abort(int) {
  keep_input();
  _exit(134);
}

void run(const Bytes& input) {
  // A copy of its own size: one byte too far is outside of it.
  const Bytes exact(input.begin(), input.end());
  running = &exact;
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  running = nullptr;
}

class Mutator {
 public:
  Mutator(std::vector<Bytes> corpus, unsigned seed) : corpus_(std::move(corpus)), random_(seed) {}

  Bytes next() {
    Bytes input = corpus_[below(corpus_.size())];
    for (std::size_t count = 1 + below(6); count > 0; --count) change(&input);
    return input;
  }

 private:
  std::size_t below(std::size_t end) { return end == 0 ? 0 : random_() % end; }

  void change(Bytes* input) {
    static constexpr std::uint8_t kEdges[] = {0x00, 0xff, 0x7f, 0x80, 0x01, 0xfe};
    const std::size_t at = below(input->size() + 1);
    const auto place = input->begin() + static_cast<std::ptrdiff_t>(at);
    const auto end_of = [&](std::size_t length) {
      return place + static_cast<std::ptrdiff_t>(std::min(length, input->size() - at));
    };
    switch (below(7)) {
      case 0: input->resize(at); break;
      case 1: input->insert(place, 1 + below(8), kEdges[below(6)]); break;
      case 2: input->erase(place, end_of(1 + below(16))); break;
      case 3: std::fill(place, end_of(1 + below(4)), kEdges[below(6)]); break;
      case 4: {  // a piece of another input
        const Bytes& other = corpus_[below(corpus_.size())];
        const std::size_t from = below(other.size()), length = std::min(below(64), other.size() - from);
        input->insert(place, other.begin() + static_cast<std::ptrdiff_t>(from),
                      other.begin() + static_cast<std::ptrdiff_t>(from + length));
        break;
      }
      case 5:
        if (at < input->size()) (*input)[at] = static_cast<std::uint8_t>((*input)[at] + below(35) - 17);
        break;
      default:
        if (at < input->size()) (*input)[at] ^= static_cast<std::uint8_t>(1u << below(8));
    }
  }

  std::vector<Bytes> corpus_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int count, char** argument) {
  if (count != 4) {
    std::fprintf(stderr, "usage: fuzz FOLDER SECONDS SEED\n");
    return 2;
  }
  __sanitizer_set_death_callback(keep_input);
  std::signal(SIGABRT, on_abort);
  std::vector<Bytes> corpus;
  for (const auto& entry : std::filesystem::directory_iterator(argument[1])) {
    std::ifstream file(entry.path(), std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (corpus.empty()) return 2;
  unsigned long executions = 0;
  for (const Bytes& input : corpus) run(input), ++executions;
  Mutator mutator(corpus, static_cast<unsigned>(std::atoi(argument[3])));
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argument[2]));
  while (std::chrono::steady_clock::now() < end) run(mutator.next()), ++executions;
  std::printf("executions %lu\n", executions);
  return 0;
}

// BUNDLE IMAGE PREDICTIONS OPENINGS: opens and closes the bundle, then predicts; prints resident KiB after each opening,
// and at the start and after each tenth of the predictions, or each of fewer than ten.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "opening.hpp"

namespace {

long resident_kib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.compare(0, 6, "VmRSS:") == 0) return std::atol(line.c_str() + 6);
  }
  return 0;
}

}  // namespace

int main(int count, char** argument) {
  if (count != 5) return 2;
  const int predictions = std::atoi(argument[3]), openings = std::atoi(argument[4]);
  const int step = predictions < 10 ? 1 : predictions / 10;
  std::vector<long> memory;
  for (int i = 0; i < openings; ++i) {
    samdeploy_close(open_or_exit(argument[1], options("fp32", 1, 0)));
    memory.push_back(resident_kib());
  }
  for (const long each : memory) std::printf("%ld ", each);
  samdeploy_classifier* classifier = open_or_exit(argument[1], options("fp32", 1, 0));
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  samdeploy_describe(classifier, &about);
  std::vector<std::uint8_t> pixels(std::size_t{about.height} * about.width * 3);
  std::vector<float> logits(about.classes);
  samdeploy_score best;
  std::printf("\n%ld ", resident_kib());
  for (int i = 1; i <= predictions; ++i) {
    if (samdeploy_prepare_file(classifier, argument[2], pixels.data()) != SAMDEPLOY_OK ||
        samdeploy_run(classifier, pixels.data(), 1, logits.data()) != SAMDEPLOY_OK ||
        samdeploy_rank(classifier, logits.data(), &best, 1) != SAMDEPLOY_OK) {
      std::fprintf(stderr, "%s\n", samdeploy_last_error());
      return 1;
    }
    if (i % step == 0) std::printf("%ld ", resident_kib());
  }
  std::printf("\n");
  samdeploy_close(classifier);
  return 0;
}

// embed-samdeploy BUNDLE BATCH THREADS SECONDS FILE...: JPEG bytes to class, by the library.
#include <iostream>

#include "measure.hpp"
#include "samdeploy.h"

namespace {

void check(samdeploy_status status) {
  if (status != SAMDEPLOY_OK) throw std::runtime_error(samdeploy_last_error());
}

int run(int count, char** argument) {
  const std::size_t batch = static_cast<std::size_t>(std::atoi(argument[2]));
  const std::vector<Bytes> files = read_files(argument + 5, argument + count);
  const Clock::time_point start = Clock::now();
  samdeploy_options options = SAMDEPLOY_OPTIONS_INIT;
  options.threads = std::atoi(argument[3]);
  samdeploy_classifier* classifier = nullptr;
  check(samdeploy_open(argument[1], &options, &classifier));
  const double open_ms = ms_since(start);
  samdeploy_description about = {};
  about.struct_size = sizeof about;
  check(samdeploy_describe(classifier, &about));
  const std::size_t size = std::size_t{about.height} * about.width * 3;
  Bytes pixels(batch * size);
  std::vector<float> logits(batch * about.classes);
  const Program program = {
      "samdeploy",
      [&](const Bytes& jpeg, std::size_t place) {
        check(samdeploy_prepare_memory(classifier, jpeg.data(), jpeg.size(), &pixels[place * size]));
      },
      [&](std::vector<std::size_t>* classes) {
        check(samdeploy_run(classifier, pixels.data(), batch, logits.data()));
        for (std::size_t i = 0; i < batch; ++i) {
          samdeploy_score best;
          check(samdeploy_rank(classifier, &logits[i * about.classes], &best, 1));
          (*classes)[i] = best.index;
        }
      }};
  const int status = measure(program, files, batch, options.threads, std::atof(argument[4]), open_ms);
  samdeploy_close(classifier);
  return status;
}

}  // namespace

int main(int count, char** argument) {
  if (count < 6) {
    std::cerr << "usage: embed-samdeploy BUNDLE BATCH THREADS SECONDS FILE...\n";
    return 2;
  }
  try {
    return run(count, argument);
  } catch (const std::exception& error) {
    std::cerr << "embed-samdeploy: " << error.what() << "\n";
    return 1;
  }
}

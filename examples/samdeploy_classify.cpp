// samdeploy-classify BUNDLE IMAGE...: the JSON lines of `samdeploy predict --json`, from C++.
// Exit code: 0; 1 if a picture could not be read; 2 if not one could, or the bundle could not be opened.
#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "samdeploy.hpp"

namespace {

constexpr int kGroup = 32;

// As JSON; bytes of a file's name that are no UTF-8 become U+FFFD, as in Python.
std::string quoted(const std::string& text) {
  using Json = nlohmann::json;
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The shortest digits that give the same double back.
std::string number(double value) {
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof text, value);
  std::string json(text, end.ptr);
  return json.find_first_of(".e") == std::string::npos ? json + ".0" : json;
}

std::string line(const std::string& image, const samdeploy::Prediction& prediction) {
  std::string json = "{\"image\": " + quoted(image) + ", \"label\": " + quoted(prediction.label) +
                     ", \"index\": " + std::to_string(prediction.index) +
                     ", \"probability\": " + number(prediction.probability) + ", \"top\": [";
  const char* between = "";
  for (const samdeploy::Score& score : prediction.top) {
    json += between;
    json += "{\"label\": " + quoted(score.label) + ", \"probability\": " + number(score.probability) + "}";
    between = ", ";
  }
  return json + "]}";
}

// One line for each picture; says how many could not be read.
int print_group(const samdeploy::Classifier& classifier, const std::vector<std::string>& images) {
  std::vector<std::vector<std::uint8_t>> prepared;
  std::vector<std::string> errors(images.size());
  int broken = 0;
  for (std::size_t i = 0; i < images.size(); ++i) {
    try {
      prepared.push_back(classifier.prepare(images[i]));
    } catch (const samdeploy::Error& error) {
      if (error.status() != SAMDEPLOY_IMAGE && error.status() != SAMDEPLOY_IMAGE_TOO_LARGE) throw;
      errors[i] = error.what();
      ++broken;
    }
  }
  const std::vector<samdeploy::Prediction> predictions = classifier.predict_prepared(prepared);
  auto next = predictions.begin();
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (errors[i].empty()) {
      std::cout << line(images[i], *next++) << "\n";
    } else {
      std::cerr << "samdeploy-classify: " << errors[i] << "\n";
      std::cout << "{\"image\": " << quoted(images[i]) << ", \"error\": " << quoted(errors[i]) << "}\n";
    }
  }
  return broken;
}

}  // namespace

int main(int count, char** argument) {
  for (int i = 1; i < count; ++i) {
    const std::string word = argument[i];
    if (word.size() > 1 && word[0] == '-') {
      std::cerr << "samdeploy-classify: unknown option " << word << "; a file of that name: ./" << word << "\n";
      return 2;
    }
  }
  if (count < 3) {
    std::cerr << "usage: samdeploy-classify BUNDLE IMAGE...\n";
    return 2;
  }
  try {
    const samdeploy::Classifier classifier = samdeploy::Classifier::open(argument[1]);
    int broken = 0;
    // In groups, as `samdeploy predict` does: the last bits of an answer may depend on the size of its batch.
    for (int start = 2; start < count; start += kGroup) {
      const std::vector<std::string> group(argument + start, argument + std::min(start + kGroup, count));
      broken += print_group(classifier, group);
    }
    if (broken == 0) return 0;
    std::cerr << "samdeploy-classify: " << broken << " of " << count - 2 << " pictures could not be read\n";
    return broken == count - 2 ? 2 : 1;
  } catch (const samdeploy::Error& error) {
    std::cerr << "samdeploy-classify: " << error.what() << "\n";
    return 2;
  }
}

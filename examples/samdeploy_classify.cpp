// samdeploy-classify BUNDLE IMAGE...: the JSON lines of `samdeploy predict --json`, from C++.  Its exit codes: kHelp.
#include <algorithm>
#include <charconv>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "output.hpp"
#include "samdeploy.hpp"

namespace {

constexpr int kGroup = 32;
constexpr std::size_t kTop = 5;
constexpr const char* kUsage = "usage: samdeploy-classify BUNDLE IMAGE...\n";
constexpr const char* kHelp =
    "One JSON line for each image on stdout, as `samdeploy predict --json --backend openvino` prints it.\n"
    "Exit code: 0; 1 if an image could not be read; 2 if not one could, the bundle could not be opened, or stdout\n"
    "takes no more.\n";

// As JSON; bytes of a file's name that are no UTF-8 become U+FFFD, as in Python.
std::string json_text(const std::string& text) {
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

// What is written of one image, or why there is nothing.
struct Answer {
  std::string line, error;
};

std::string line(const std::string& image, const std::vector<samdeploy_score>& best,
                 const samdeploy::Classifier& classifier) {
  const std::vector<std::string>& classes = classifier.classes();
  std::string json = "{\"image\": " + json_text(image) + ", \"label\": " + json_text(classes[best[0].index]) +
                     ", \"index\": " + std::to_string(best[0].index) +
                     ", \"probability\": " + number(best[0].probability) + ", \"rejected\": " +
                     (classifier.rejects(best[0].probability) ? "true" : "false") + ", \"top\": [";
  const char* between = "";
  for (const samdeploy_score& score : best) {
    json += between;
    json += "{\"label\": " + json_text(classes[score.index]) + ", \"probability\": " + number(score.probability) + "}";
    between = ", ";
  }
  return json + "]}";
}

bool is_of_the_image(samdeploy_status status) {
  return status == SAMDEPLOY_IMAGE || status == SAMDEPLOY_IMAGE_TOO_LARGE || status == SAMDEPLOY_NOT_FINITE;
}

// One line for each image; says how many could not be read, or have no answer.
int print_group(const samdeploy::Classifier& classifier, const std::vector<std::string>& images) {
  std::vector<Answer> answers(images.size());
  std::vector<std::size_t> sound;
  std::vector<std::uint8_t> batch;
  for (std::size_t i = 0; i < images.size(); ++i) {
    try {
      const std::vector<std::uint8_t> pixels = classifier.prepare(images[i]);
      batch.insert(batch.end(), pixels.begin(), pixels.end());
      sound.push_back(i);
    } catch (const samdeploy::Error& error) {
      if (!is_of_the_image(error.status())) throw;
      answers[i].error = error.what();
    }
  }
  const std::size_t classes = classifier.classes().size();
  std::vector<float> logits(sound.size() * classes);
  if (!sound.empty()) classifier.run(batch.data(), sound.size(), logits.data());
  for (std::size_t row = 0; row < sound.size(); ++row) {
    const std::string& image = images[sound[row]];
    try {
      answers[sound[row]].line = line(image, classifier.rank(&logits[row * classes], kTop), classifier);
    } catch (const samdeploy::Error& error) {
      if (!is_of_the_image(error.status())) throw;
      answers[sound[row]].error = image + ": " + error.what();
    }
  }
  int broken = 0;
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (answers[i].error.empty()) {
      print(answers[i].line + "\n");
    } else {
      ++broken;
      std::cerr << "samdeploy-classify: " << answers[i].error << "\n";
      print("{\"image\": " + json_text(images[i]) + ", \"error\": " + json_text(answers[i].error) + "}\n");
    }
  }
  flush_output();
  return broken;
}

int help() {
  print(std::string(kUsage) + kHelp);
  flush_output();
  return 0;
}

int classify(int count, char** argument) {
  check_output();
  for (int i = 1; i < count; ++i) {
    const std::string word = argument[i];
    if (word == "--help" || word == "-h") return help();
    if (word.size() > 1 && word[0] == '-') {
      std::cerr << "samdeploy-classify: unknown option " << word << "; a file of that name: ./" << word << "\n";
      return 2;
    }
  }
  if (count < 3) {
    std::cerr << kUsage;
    return 2;
  }
  const samdeploy::Classifier classifier = samdeploy::Classifier::open(argument[1]);
  int broken = 0;
  // In groups, as `samdeploy predict` does: the last bits of an answer may depend on the size of its batch.
  for (int start = 2; start < count; start += kGroup) {
    const std::vector<std::string> group(argument + start, argument + std::min(start + kGroup, count));
    broken += print_group(classifier, group);
  }
  if (broken == 0) return 0;
  std::cerr << "samdeploy-classify: " << broken << " of " << count - 2 << " images could not be read\n";
  return broken == count - 2 ? 2 : 1;
}

}  // namespace

int main(int count, char** argument) {
  try {
    return classify(count, argument);
  } catch (const std::exception& error) {
    std::cerr << "samdeploy-classify: " << error.what() << "\n";
    return 2;
  }
}

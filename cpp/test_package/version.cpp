#include <cstdio>
#include <samdeploy.hpp>

int main() {
  std::printf("samdeploy %s\n", samdeploy_version());
  try {
    samdeploy::Classifier::open("no bundle");
  } catch (const samdeploy::Error &) {
    return 0;  // the library was loaded and answers
  }
  return 1;
}

// What the programs of the tests begin with.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "samdeploy.h"

// `engine`: a precision, or a backend and a precision, such as "onnxruntime:fp32".
inline samdeploy_options options(const char* engine, int threads, int requests) {
  static std::string backend;
  samdeploy_options made = SAMDEPLOY_OPTIONS_INIT;
  made.precision = engine;
  if (const char* colon = std::strchr(engine, ':')) {
    backend.assign(engine, colon);
    made.backend = backend.c_str();
    made.precision = colon + 1;
  }
  made.threads = threads;
  made.requests = requests;
  return made;
}

inline samdeploy_classifier* open_or_exit(const char* bundle, const samdeploy_options& made) {
  samdeploy_classifier* classifier = nullptr;
  if (samdeploy_open(bundle, &made, &classifier) != SAMDEPLOY_OK) {
    std::fprintf(stderr, "%s\n", samdeploy_last_error());
    std::exit(1);
  }
  return classifier;
}

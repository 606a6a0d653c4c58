// samdeploy.h: checks arguments, and turns exceptions into a status and a sentence of this thread.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>

#include "classifier.hpp"
#include "error.hpp"
#include "image.hpp"

#ifndef SAMDEPLOY_VERSION
#error "the build defines SAMDEPLOY_VERSION"
#endif

namespace core = samdeploy::core;

namespace {

thread_local std::string last_error;

samdeploy_status told(samdeploy_status status, const char* text) noexcept {
  try {
    last_error = text;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

// Nothing may be thrown across the C ABI.
template <typename Work>
samdeploy_status guarded(const Work& work) noexcept {
  try {
    work();
    return SAMDEPLOY_OK;
  } catch (const core::Error& error) {
    return told(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    return told(SAMDEPLOY_NO_MEMORY, core::kMemoryIsFull);
  } catch (const std::exception& error) {
    return told(SAMDEPLOY_INTERNAL, error.what());
  } catch (...) {
    return told(SAMDEPLOY_INTERNAL, "an unknown exception");
  }
}

void require(bool holds, const char* text) {
  if (!holds) throw core::Error(SAMDEPLOY_ARGUMENT, text);
}

// The caller's struct as this library knows it: missing fields are 0, unknown ones must be.
samdeploy_options known_options(const samdeploy_options* found) {
  samdeploy_options options = SAMDEPLOY_OPTIONS_INIT;
  if (found == nullptr) return options;
  const std::size_t size = found->struct_size;
  require(size >= sizeof(std::size_t) && size <= 4096, "options: struct_size must be sizeof(samdeploy_options)");
  const auto* bytes = reinterpret_cast<const unsigned char*>(found);
  for (std::size_t i = sizeof options; i < size; ++i) {
    require(bytes[i] == 0, "options: a field is set that this library is too old for; install a newer one");
  }
  std::memcpy(&options, found, std::min(size, sizeof options));
  return options;
}

void prepare(const core::OpenClassifier& classifier, core::Workspace& space, const std::uint8_t* encoded,
             std::size_t size, const char* name, std::uint8_t* pixels) {
  try {
    core::Resize resize(classifier.manifest.preprocessing, pixels, space);
    core::decode(encoded, size, classifier.limits, space, resize);
  } catch (const core::Error& error) {
    throw core::Error(error.status(), std::string(name) + ": " + error.what());
  }
}

void check_batch(const core::OpenClassifier& classifier, std::size_t count) {
  require(count >= 1, "run: count must be at least 1");
  require(count <= SIZE_MAX / 2 / classifier.pixel_bytes(), "run: count is more images than any memory holds");
}

void check_finite(const float* logits, std::size_t classes, const std::string& precision) {
  const auto unusable = std::count_if(logits, logits + classes, [](float value) { return !std::isfinite(value); });
  if (unusable == 0) return;
  const char* cure = precision == "fp32" ? "the network has no answer to it" : "open the bundle in fp32";
  throw core::Error(SAMDEPLOY_NOT_FINITE,
                    std::to_string(unusable) + " of " + std::to_string(classes) +
                        " logits are not finite numbers: the image drives the network out of the range of " +
                        precision + "; " + cure);
}

}  // namespace

extern "C" {

uint32_t samdeploy_abi_version(void) { return SAMDEPLOY_ABI_VERSION; }

const char* samdeploy_version(void) { return SAMDEPLOY_VERSION; }

const char* samdeploy_last_error(void) { return last_error.c_str(); }

samdeploy_status samdeploy_open(const char* bundle, const samdeploy_options* options,
                                samdeploy_classifier** classifier) {
  return guarded([&] {
    require(bundle != nullptr && classifier != nullptr, "open: bundle and classifier must not be NULL");
    *classifier = nullptr;
    const samdeploy_options known = known_options(options);
    require(known.threads >= 0 && known.threads <= 4096, "options: threads must be from 0 to 4096");
    require(known.requests >= 0 && known.requests <= 1024, "options: requests must be from 0 to 1024");
    core::check_may_open();
    auto made = std::make_shared<core::OpenClassifier>();
    if (known.backend != nullptr) made->options.backend = known.backend;
    if (known.precision != nullptr) made->options.precision = known.precision;
    made->options.threads = known.threads;
    made->options.requests = known.requests == 0 ? 1 : known.requests;
    if (known.max_pixels != 0) made->limits.pixels = known.max_pixels;
    if (known.max_bytes != 0) made->limits.encoded = known.max_bytes;
    const core::Bundle opened(bundle);
    core::note_runtime_started();
    made->session = core::open_session(opened, made->options);
    made->manifest = opened.manifest();
    *classifier = core::add_handle(std::move(made));
  });
}

void samdeploy_close(samdeploy_classifier* classifier) {
  guarded([&] { core::drop_handle(classifier); });
}

samdeploy_status samdeploy_describe(const samdeploy_classifier* handle, samdeploy_description* description) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(description != nullptr, "describe: description must not be NULL");
    const std::size_t size = description->struct_size;
    require(size >= sizeof(std::size_t) && size <= 4096, "describe: struct_size must be sizeof(samdeploy_description)");
    samdeploy_description found = {};
    found.struct_size = size;
    found.height = static_cast<uint32_t>(classifier->manifest.preprocessing.height);
    found.width = static_cast<uint32_t>(classifier->manifest.preprocessing.width);
    found.classes = classifier->manifest.classes.size();
    found.backend = classifier->options.backend.c_str();
    found.precision = classifier->options.precision.c_str();
    found.arch = classifier->manifest.arch.c_str();
    found.temperature = classifier->manifest.temperature;
    found.threshold = classifier->manifest.threshold;
    std::memset(description, 0, size);
    std::memcpy(description, &found, std::min(size, sizeof found));
  });
}

const char* samdeploy_class_name(const samdeploy_classifier* handle, size_t index) {
  const char* name = nullptr;
  guarded([&] {
    const auto classifier = core::find_handle(handle);
    const std::size_t count = classifier->manifest.classes.size();
    require(index < count, "class_name: index must be below the number of classes");
    name = classifier->manifest.classes[index].c_str();
  });
  return name;
}

samdeploy_status samdeploy_prepare_file(const samdeploy_classifier* handle, const char* path, uint8_t* pixels) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(path != nullptr && pixels != nullptr, "prepare: arguments must not be NULL");
    const core::IdleWorkspaces::Loan space(classifier->idle);
    core::Buffer& content = (*space).encoded;
    core::read_image(path, classifier->limits, &content);
    prepare(*classifier, *space, content.data(), content.size(), path, pixels);
  });
}

samdeploy_status samdeploy_prepare_memory(const samdeploy_classifier* handle, const void* encoded, size_t size,
                                          uint8_t* pixels) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(encoded != nullptr && pixels != nullptr, "prepare: arguments must not be NULL");
    const core::IdleWorkspaces::Loan space(classifier->idle);
    prepare(*classifier, *space, static_cast<const std::uint8_t*>(encoded), size, "image", pixels);
  });
}

samdeploy_status samdeploy_prepare_rgb(const samdeploy_classifier* handle, const uint8_t* rgb, uint32_t height,
                                       uint32_t width, size_t stride, uint8_t* pixels) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(rgb != nullptr && pixels != nullptr, "prepare: arguments must not be NULL");
    require(height >= 1 && width >= 1, "prepare: height and width must be at least 1");
    const std::size_t row = std::size_t{width} * 3;
    require(stride == 0 || (stride >= row && stride <= std::numeric_limits<std::uint32_t>::max()),
            "prepare: stride must be 0, or bytes from row to row");
    core::check_pixels(height, width, classifier->limits);
    const core::IdleWorkspaces::Loan space(classifier->idle);
    core::Resize resize(classifier->manifest.preprocessing, pixels, *space);
    resize.begin(height, width, 1);
    for (std::size_t y = 0; y < height; ++y) resize.add(rgb + y * (stride == 0 ? row : stride));
  });
}

samdeploy_status samdeploy_run(samdeploy_classifier* handle, const uint8_t* batch, size_t count, float* logits) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(batch != nullptr && logits != nullptr, "run: arguments must not be NULL");
    check_batch(*classifier, count);
    classifier->session->run(batch, count, logits);
  });
}

samdeploy_status samdeploy_run_device(samdeploy_classifier* handle, const void* batch, size_t count, void* logits,
                                      void* stream) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(batch != nullptr && logits != nullptr, "run_device: batch and logits must not be NULL");
    check_batch(*classifier, count);
    classifier->session->run_device(batch, count, logits, stream);
  });
}

samdeploy_status samdeploy_rank(const samdeploy_classifier* handle, const float* logits, samdeploy_score* best,
                                size_t wanted) {
  return guarded([&] {
    const auto classifier = core::find_handle(handle);
    require(logits != nullptr && best != nullptr, "rank: arguments must not be NULL");
    const std::size_t classes = classifier->manifest.classes.size();
    require(wanted >= 1 && wanted <= classes, "rank: wanted must be from 1 to the number of classes");
    check_finite(logits, classes, classifier->options.precision);
    const double temperature = classifier->manifest.temperature;
    double highest = logits[0], sum = 0.0;
    for (std::size_t i = 1; i < classes; ++i) highest = std::max(highest, static_cast<double>(logits[i]));
    const auto exponential = [&](float logit) { return std::exp((static_cast<double>(logit) - highest) / temperature); };
    for (std::size_t i = 0; i < classes; ++i) sum += exponential(logits[i]);
    for (std::size_t place = 0; place < wanted; ++place) {
      // The best of those after the last one: lower, or equal and further to the right.  Reserves no memory.
      std::size_t next = classes;
      for (std::size_t i = 0; i < classes; ++i) {
        const std::size_t last = place == 0 ? classes : best[place - 1].index;
        const bool after = place == 0 || logits[i] < logits[last] || (logits[i] == logits[last] && i > last);
        if (after && (next == classes || logits[i] > logits[next])) next = i;
      }
      best[place] = {next, exponential(logits[next]) / sum};
    }
  });
}

}  // extern "C"

#include "session.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "backend.hpp"

namespace samdeploy::core {
namespace {

// Largest allowed difference from the golden logits, as a share of `image_ranges`; see samdeploy/backends/session.py.
struct Tolerance {
  const char* precision;
  double allowed;
};
constexpr Tolerance kTolerances[] = {{"fp32", 1e-4}, {"fp16", 5e-2}, {"bf16", 1e-1}, {"int8", 2e-1}};

const Tolerance& tolerance(const std::string& precision) {
  for (const Tolerance& each : kTolerances) {
    if (precision == each.precision) return each;
  }
  throw Error(SAMDEPLOY_ARGUMENT, "unknown precision '" + precision.substr(0, 60) + "'. Valid: fp32, fp16, bf16, int8");
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2e", value);
  return text;
}

// The scale on which each image's answer is judged; see samdeploy/backends/difference.py.
std::vector<double> image_ranges(const Golden& golden, std::size_t classes) {
  std::vector<double> ranges(golden.count);
  for (std::size_t i = 0; i < golden.count; ++i) {
    const auto first = golden.logits.begin() + static_cast<std::ptrdiff_t>(i * classes);
    const auto [low, high] = std::minmax_element(first, first + static_cast<std::ptrdiff_t>(classes));
    ranges[i] = static_cast<double>(*high) - static_cast<double>(*low);
  }
  std::vector<double> sorted = ranges;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  const double median = sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  for (double& range : ranges) {
    range = std::max(range, median);
    if (range == 0.0) range = 1.0;
  }
  return ranges;
}

// The order in which the engine reads channels, such as "BGR"; empty where it is RGB, or cannot be told.  Shown by golden
// images that differ by the order of their channels alone; see samdeploy/backends/channels.py and docs/bundle.md 3.
std::string order_read(const Golden& golden, const std::vector<float>& found, const std::vector<double>& ranges,
                       std::size_t classes) {
  constexpr double kFloor = 1e-2, kRatio = 2.0;
  constexpr std::size_t kOrders[][3] = {{0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  const std::size_t size = golden.images.size() / golden.count;
  const auto is_twin = [&](std::size_t i, std::size_t j, const std::size_t* order) {
    const auto* own = golden.images.data() + i * size;
    const auto* other = golden.images.data() + j * size;
    for (std::size_t pixel = 0; pixel < size; pixel += 3) {
      for (std::size_t channel = 0; channel < 3; ++channel) {
        if (other[pixel + channel] != own[pixel + order[channel]]) return false;
      }
    }
    return true;
  };
  const auto share = [&](std::size_t i, std::size_t expected, double range) {
    double most = 0.0;
    for (std::size_t k = 0; k < classes; ++k) {
      most = std::max(most, std::abs(static_cast<double>(found[i * classes + k]) -
                                     static_cast<double>(golden.logits[expected * classes + k])));
    }
    return most / range;
  };
  std::string best;
  double closest = 0.0;
  for (const auto& order : kOrders) {
    double own = 0.0, other = 0.0, pairs = 0.0;
    for (std::size_t i = 0; i < golden.count; ++i) {
      for (std::size_t j = 0; j < golden.count; ++j) {
        if (i == j || !is_twin(i, j, order)) continue;
        const double range = std::max(ranges[i], ranges[j]);
        own += share(i, i, range);
        other += share(i, j, range);
        pairs += 1.0;
      }
    }
    if (pairs == 0.0 || own / pairs <= kFloor || own <= kRatio * other) continue;
    if (best.empty() || other / pairs < closest) {
      closest = other / pairs;
      best = {"RGB"[order[0]], "RGB"[order[1]], "RGB"[order[2]]};
    }
  }
  return best;
}

}  // namespace

std::unique_ptr<Session> open_session(const Bundle& bundle, const Options& options) {
  tolerance(options.precision);
  const Backend& backend = load_backend(options.backend);
  const BundleFile* file = nullptr;
  try {
    file = backend.choose(bundle.manifest(), options);
  } catch (const Error& error) {
    throw Error(error.status(), "bundle " + bundle.path() + ": " + error.what());
  }
  const Golden golden = bundle.golden();
  const Bytes content = bundle.read(*file);
  std::unique_ptr<Session> session = backend.open(content, *file, bundle.manifest(), options);
  check_golden(*session, golden, bundle.manifest().classes.size(), options);
  return session;
}

void check_golden(Session& session, const Golden& golden, std::size_t classes, const Options& options) {
  const std::string engine = options.backend + " engine (" + options.precision + ")";
  const std::string cure = "do not use it; make the bundle again with `samdeploy export`";
  std::vector<float> found(golden.logits.size());
  session.run(golden.images.data(), golden.count, found.data());
  const auto bad = std::count_if(found.begin(), found.end(), [](float value) { return !std::isfinite(value); });
  if (bad != 0) {
    throw Error(SAMDEPLOY_WRONG_ANSWERS, engine + ": " + std::to_string(bad) + " of " + std::to_string(found.size()) +
                                             " golden logits are not finite numbers; " + cure);
  }
  const std::vector<double> ranges = image_ranges(golden, classes);
  const std::string order = order_read(golden, found, ranges, classes);
  if (!order.empty()) {
    throw Error(SAMDEPLOY_WRONG_ANSWERS,
                engine + ": the golden images show that it reads channels as " + order + ", not RGB; " + cure);
  }
  std::vector<double> worst(golden.count, 0.0);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double off = std::abs(static_cast<double>(found[i]) - static_cast<double>(golden.logits[i]));
    worst[i / classes] = std::max(worst[i / classes], off / ranges[i / classes]);
  }
  std::sort(worst.begin(), worst.end());
  // Without squashing, single images explode; int8 ranges leave them out on purpose.
  const std::size_t outliers = options.precision == "int8" ? worst.size() / 4 : 0;
  const double error = worst[worst.size() - 1 - outliers];
  const double allowed = tolerance(options.precision).allowed;
  if (error > allowed) {
    throw Error(SAMDEPLOY_WRONG_ANSWERS, engine + ": the golden images give logits that differ by " +
                                             short_number(error) + " of their range, at most " +
                                             short_number(allowed) + " is allowed: this is not the model of this " +
                                             "bundle; " + cure);
  }
}

}  // namespace samdeploy::core

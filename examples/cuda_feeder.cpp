// cuda-feeder BUNDLE IMAGE: classifies an image that lies in CUDA device memory already, as frames do that a decoder or
// a camera's driver writes there.  The work is queued on the application's own stream; nothing goes through the host
// but the answer.  Needs a bundle with a TensorRT engine for this GPU.
#include <cuda_runtime_api.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include "output.hpp"
#include "samdeploy.hpp"

namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

struct Free {
  void operator()(void* address) const { cudaFree(address); }
};
using DeviceMemory = std::unique_ptr<void, Free>;

DeviceMemory device_memory(std::size_t size) {
  void* address = nullptr;
  check(cudaMalloc(&address, size), "device memory");
  return DeviceMemory(address);
}

}  // namespace

int main(int count, char** argument) {
  if (count != 3) {
    std::cerr << "usage: cuda-feeder BUNDLE IMAGE\n";
    return 2;
  }
  try {
    samdeploy::Options options;
    options.backend = "tensorrt";
    options.precision = "fp16";
    const samdeploy::Classifier classifier = samdeploy::Classifier::open(argument[1], options);
    const std::vector<std::uint8_t> pixels = classifier.prepare(argument[2]);
    std::vector<float> logits(classifier.classes().size());

    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream), "stream");
    const DeviceMemory images = device_memory(pixels.size()), answers = device_memory(logits.size() * sizeof(float));
    // Stands for whatever writes images into device memory in your application.
    check(cudaMemcpyAsync(images.get(), pixels.data(), pixels.size(), cudaMemcpyHostToDevice, stream), "copy");
    classifier.run_device(images.get(), 1, answers.get(), stream);
    check(cudaMemcpyAsync(logits.data(), answers.get(), logits.size() * sizeof(float), cudaMemcpyDeviceToHost, stream),
          "copy");
    check(cudaStreamSynchronize(stream), "run");
    const samdeploy_score best = classifier.rank(logits.data(), 1).front();
    print(classifier.classes()[best.index] + " " + std::to_string(best.probability) + "\n");
    flush_output();
    check(cudaStreamDestroy(stream), "stream");
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "cuda-feeder: " << error.what() << "\n";
    return 1;
  }
}

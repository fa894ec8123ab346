// Memory and streams for plugin_harness.cpp: of a GPU in device_cuda.cpp; in device_host.cpp of the
// CPU, for a library whose kernels were built for that.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace device {

// Why nothing can run here, or an empty string.
std::string whyNot();

void* allocate(size_t bytes);
void release(void* memory);
void write(void* to, const void* from, size_t bytes);
void read(void* to, const void* from, size_t bytes);

// Enqueued work, captured into a graph where there are such.
class Captured {
 public:
  explicit Captured(std::function<int32_t(cudaStream_t)> enqueue);
  ~Captured();
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  // What enqueue returned.
  int32_t status() const { return status_; }
  // Whether the work is `kernels` launches and nothing else.
  bool holdsOnly(size_t kernels) const;
  void run();

 private:
  std::function<int32_t(cudaStream_t)> enqueue_;
  int32_t status_ = 0;
  cudaStream_t stream_ = nullptr;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t ready_ = nullptr;
};

}  // namespace device

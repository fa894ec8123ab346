#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "device.h"

namespace device {
namespace {

void must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::printf("FAILED %s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
#define MUST(call) must((call), #call)

}  // namespace

std::string whyNot() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return "";
  return error == cudaSuccess ? "no GPU" : std::string("no GPU: ") + cudaGetErrorString(error);
}

void* allocate(size_t bytes) {
  void* memory = nullptr;
  MUST(cudaMalloc(&memory, bytes));
  return memory;
}

void release(void* memory) {
  MUST(cudaFree(memory));
}

void write(void* to, const void* from, size_t bytes) {
  MUST(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}

void read(void* to, const void* from, size_t bytes) {
  MUST(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

// In the strict mode of capturing, what may not be captured fails: an allocation, a
// synchronisation.
Captured::Captured(std::function<int32_t(cudaStream_t)> enqueue) : enqueue_(std::move(enqueue)) {
  MUST(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  MUST(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
  status_ = enqueue_(stream_);
  MUST(cudaStreamEndCapture(stream_, &graph_));
  MUST(cudaGraphInstantiate(&ready_, graph_, 0));
  run();
}

Captured::~Captured() {
  cudaGraphExecDestroy(ready_);
  cudaGraphDestroy(graph_);
  cudaStreamDestroy(stream_);
}

bool Captured::holdsOnly(size_t kernels) const {
  size_t count = 0;
  MUST(cudaGraphGetNodes(graph_, nullptr, &count));
  std::vector<cudaGraphNode_t> nodes(count);
  MUST(cudaGraphGetNodes(graph_, nodes.data(), &count));
  for (const cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type{};
    MUST(cudaGraphNodeGetType(node, &type));
    if (type != cudaGraphNodeTypeKernel) return false;
  }
  return count == kernels;
}

void Captured::run() {
  MUST(cudaGraphLaunch(ready_, stream_));
  MUST(cudaStreamSynchronize(stream_));
}

}  // namespace device

// Kernels by name, for host_launch.cpp. A unit that kernel_host.py writes includes a .cu file and
// defines the list.
#pragma once

#include <cuda_runtime.h>

#include <vector>

struct HostKernel {
  const char* name;
  size_t parameterBytes;
  cudaError_t (*launch)(const cudaLaunchConfig_t& config, const void* parameters);
};

template <typename Parameters, void (*kernel)(Parameters)>
HostKernel hostKernel(const char* name) {
  const auto launch = [](const cudaLaunchConfig_t& config, const void* parameters) {
    return cudaLaunchKernelEx(&config, kernel, *static_cast<const Parameters*>(parameters));
  };
  return {name, sizeof(Parameters), launch};
}

std::vector<HostKernel> hostKernels();

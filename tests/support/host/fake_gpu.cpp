// Launches of fake_driver.c run on the CPU, by the kernels of host_launch.h.
#include "host_launch.h"

#include <cstring>

struct Launch {  // as in fake_driver.c
  const char* kernel;
  unsigned grid[3], block[3], sharedBytes;
  unsigned char parameters[4096];
};

namespace {

const HostKernel* find(const char* name) {
  static const std::vector<HostKernel> kernels = hostKernels();
  for (const HostKernel& kernel : kernels)
    if (std::strcmp(kernel.name, name) == 0) return &kernel;
  return nullptr;
}

}  // namespace

extern "C" size_t parameterBytesOf(const char* kernel) {
  const HostKernel* found = find(kernel);
  return found ? found->parameterBytes : 0;
}

extern "C" int runLaunch(const Launch* launch) {
  const HostKernel* kernel = find(launch->kernel);
  if (!kernel) return cudaErrorInvalidDeviceFunction;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(launch->grid[0], launch->grid[1], launch->grid[2]);
  config.blockDim = dim3(launch->block[0], launch->block[1], launch->block[2]);
  config.dynamicSmemBytes = launch->sharedBytes;
  return kernel->launch(config, launch->parameters);
}

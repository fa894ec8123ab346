// The one function of CUDA's runtime that the plugins call themselves, for a build without it.
#include <cuda_runtime_api.h>

extern "C" const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidValue ? "invalid argument" : "another error";
}

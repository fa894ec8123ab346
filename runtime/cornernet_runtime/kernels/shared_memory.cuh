// Shared memory by macros, which the tests define in their own way to run kernels on the CPU.
#pragma once

#ifndef __CUDACC_RTC__
#include <cuda_runtime.h>  // of the tests' making, there
#endif

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#define STATIC_SHARED(type, name) __shared__ type name
#endif

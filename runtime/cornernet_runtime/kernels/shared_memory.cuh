// Shared memory by macros, which the tests define in their own way to run kernels on the CPU.
#pragma once

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#define STATIC_SHARED(type, name) __shared__ type name
#endif

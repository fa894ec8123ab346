// Counts what a kernel reads and writes: the compiler's hooks for the thread sanitizer, without
// that sanitizer. Kernels are compiled with -fsanitize=thread, and this and the engine without. No
// access escapes, however it is spelled.
#include "host_cuda.h"

namespace {

void read(const void* from, size_t bytes) {
  for (auto& memory : host_cuda::watched()) {
    const auto* at = static_cast<const std::byte*>(from);
    if (at >= memory.start && at < memory.start + memory.bytes) memory.readBytes += bytes;
  }
}

void write(const void* to, size_t bytes) {
  for (auto& memory : host_cuda::watched()) {
    const auto* at = static_cast<const std::byte*>(to);
    if (at >= memory.start && at < memory.start + memory.bytes) memory.writtenBytes += bytes;
  }
}

}  // namespace

#define HOOKS(bytes)                             \
  void __tsan_read##bytes(void* at) {            \
    read(at, bytes);                             \
  }                                              \
  void __tsan_write##bytes(void* at) {           \
    write(at, bytes);                            \
  }                                              \
  void __tsan_unaligned_read##bytes(void* at) {  \
    read(at, bytes);                             \
  }                                              \
  void __tsan_unaligned_write##bytes(void* at) { \
    write(at, bytes);                            \
  }

extern "C" {
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* at, size_t bytes) {
  read(at, bytes);
}
void __tsan_write_range(void* at, size_t bytes) {
  write(at, bytes);
}
// An atomic addition reads and writes.
uint32_t __tsan_atomic32_fetch_add(volatile uint32_t* at, uint32_t value, int) {
  read(const_cast<uint32_t*>(at), sizeof(value));
  write(const_cast<uint32_t*>(at), sizeof(value));
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}

#include <cstdlib>
#include <cstring>

#include "device.h"

namespace device {

std::string whyNot() {
  return "";
}

void* allocate(size_t bytes) {
  return std::aligned_alloc(16, (bytes + 15) / 16 * 16);
}

void release(void* memory) {
  std::free(memory);
}

void write(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void read(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

Captured::Captured(std::function<int32_t(cudaStream_t)> enqueue) : enqueue_(std::move(enqueue)) {
  run();
}

Captured::~Captured() = default;

bool Captured::holdsOnly(size_t) const {
  return true;  // nothing to see here
}

void Captured::run() {
  status_ = enqueue_(nullptr);
}

}  // namespace device

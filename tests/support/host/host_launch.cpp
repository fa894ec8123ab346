// Runs launches of kernels on the CPU for kernel_host.py. Standard input holds arrays and launches;
// standard output takes the status of each launch, the bytes of each array that kernels read and
// wrote, and the arrays.
#include "host_launch.h"

#include <cstdio>
#include <cstdlib>

namespace {

struct Header {
  int64_t seed, multiprocessors, arrays, pointers, launches;
};

struct LaunchRecord {
  char kernel[64];
  int64_t grid[3], block, sharedBytes, parameterBytes, pointers;
};

// A pointer among the parameters: where it stands, and where it points.
struct Pointer {
  int64_t place, array, offset;
};

// A pointer in an array: in which.
struct StoredPointer {
  int64_t holder;
  Pointer pointer;
};

template <typename T>
std::vector<T> read(size_t count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != count) {
    std::fputs("standard input ends too early\n", stderr);
    std::exit(2);
  }
  return values;
}

// Aligned as cudaMalloc aligns. Its end is the end of an allocation, so that the address sanitizer
// sees one byte too far.
struct Array {
  explicit Array(size_t bytes) : bytes(bytes) {
    if (posix_memalign(reinterpret_cast<void**>(&data), 256, bytes) != 0) std::abort();
    if (std::fread(data, 1, bytes, stdin) != bytes) std::abort();
  }
  std::byte* data = nullptr;
  size_t bytes;
};

// Write the pointer; return what stood there.
uint64_t exchange(const std::vector<Array>& arrays, const StoredPointer& stored, uint64_t value) {
  uint64_t before = 0;
  std::byte* place = arrays.at(stored.holder).data + stored.pointer.place;
  std::memcpy(&before, place, sizeof(before));
  std::memcpy(place, &value, sizeof(value));
  return before;
}

cudaError_t launch(const LaunchRecord& record, const std::vector<Array>& arrays) {
  std::vector<std::byte> parameters = read<std::byte>(record.parameterBytes);
  for (const Pointer& pointer : read<Pointer>(record.pointers)) {
    const std::byte* target = arrays.at(pointer.array).data + pointer.offset;
    std::memcpy(&parameters.at(pointer.place), &target, sizeof(target));
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(record.grid[0], record.grid[1], record.grid[2]);
  config.blockDim = dim3(record.block);
  config.dynamicSmemBytes = record.sharedBytes;
  for (const HostKernel& kernel : hostKernels()) {
    if (std::strcmp(kernel.name, record.kernel) != 0) continue;
    if (kernel.parameterBytes != parameters.size()) {
      std::fprintf(stderr, "%s takes %zu bytes of parameters, not %zu\n", kernel.name,
                   kernel.parameterBytes, parameters.size());
      std::exit(2);
    }
    return kernel.launch(config, parameters.data());
  }
  std::fprintf(stderr, "there is no kernel %s\n", record.kernel);
  std::exit(2);
}

}  // namespace

int main() {
  const Header header = read<Header>(1).front();
  host_cuda::options().seed = static_cast<unsigned>(header.seed);
  host_cuda::options().multiprocessors = static_cast<int>(header.multiprocessors);
  std::vector<Array> arrays;
  for (int64_t bytes : read<int64_t>(header.arrays))
    arrays.emplace_back(bytes);
  const auto pointers = read<StoredPointer>(header.pointers);
  std::vector<uint64_t> given;  // comes back as it came
  for (const StoredPointer& stored : pointers) {
    const std::byte* target = arrays.at(stored.pointer.array).data + stored.pointer.offset;
    given.push_back(exchange(arrays, stored, reinterpret_cast<uint64_t>(target)));
  }
  auto& watched = host_cuda::watched();
  for (const Array& array : arrays)
    watched.push_back({array.data, array.bytes});
  for (int64_t i = 0; i < header.launches; ++i) {
    const int64_t status = launch(read<LaunchRecord>(1).front(), arrays);
    std::fwrite(&status, sizeof(status), 1, stdout);
  }
  for (size_t i = 0; i < pointers.size(); ++i)
    exchange(arrays, pointers[i], given[i]);
  for (const auto& one : watched) {
    const uint64_t counts[] = {one.readBytes, one.writtenBytes};
    std::fwrite(counts, sizeof(counts), 1, stdout);
  }
  for (const Array& array : arrays) {
    std::fwrite(array.data, 1, array.bytes, stdout);
    std::free(array.data);
  }
}

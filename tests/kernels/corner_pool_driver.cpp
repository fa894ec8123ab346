// Runs corner pooling on the CPU for test_corner_pool.py. Standard input holds cases, each 10 int64
// and two maps; standard output takes for each 5 int64 and a map.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "../../plugins/corner_pool.cuh"

namespace {

struct Case {
  int64_t corner, format, batch, channels, height, width;
  int64_t bytes;      // of a map
  int64_t offset;     // of the maps from 16-byte alignment, bytes
  int64_t workspace;  // 0: none is given, and size 0
  int64_t multiprocessors;
};

struct Result {
  int64_t status, workspaceBytes, verticalRead, horizontalRead, outputWritten;
};

// Its end is the end of an allocation, so that the address sanitizer sees one byte too far.
struct Map {
  Map(size_t bytes, size_t offset) : memory(std::malloc(bytes + offset)), bytes(bytes) {
    data = static_cast<std::byte*>(memory) + offset;
    std::memset(memory, 0xCD, bytes + offset);
  }
  Map(const Map&) = delete;
  ~Map() { std::free(memory); }
  void* memory;
  std::byte* data;
  size_t bytes;
};

void read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::abort();
}

}  // namespace

int main(int, char** arguments) {
  host_cuda::options().seed = static_cast<unsigned>(std::atoi(arguments[1]));
  Case c;
  while (std::fread(&c, sizeof(c), 1, stdin) == 1) {
    Map vertical(c.bytes, c.offset), horizontal(c.bytes, c.offset), output(c.bytes, c.offset);
    read(vertical.data, c.bytes);
    read(horizontal.data, c.bytes);
    host_cuda::options().multiprocessors = static_cast<int>(c.multiprocessors);
    const auto format = static_cast<cornernet::MapFormat>(c.format);
    const cornernet::MapShape shape{c.batch, c.channels, c.height, c.width};
    const size_t wanted = cornernet::cornerPoolWorkspaceBytes(format, shape);
    Map workspace(c.workspace ? wanted : 0, 0);
    auto& watched = host_cuda::watched();
    watched = {{vertical.data, vertical.bytes},
               {horizontal.data, horizontal.bytes},
               {output.data, output.bytes}};
    const cudaError_t status = cornernet::launchCornerPool(
        static_cast<cornernet::Corner>(c.corner), format, vertical.data, horizontal.data,
        output.data, shape, workspace.data, workspace.bytes, nullptr);
    const auto count = [](uint64_t bytes) { return static_cast<int64_t>(bytes); };
    const Result result{status, count(wanted), count(watched[0].readBytes),
                        count(watched[1].readBytes), count(watched[2].writtenBytes)};
    std::fwrite(&result, sizeof(result), 1, stdout);
    std::fwrite(output.data, 1, output.bytes, stdout);
    std::fflush(stdout);
  }
}

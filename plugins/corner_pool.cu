// The launcher of corner pooling: checks, the shape of the grid, the variant of the kernel.

#include "corner_pool.cuh"

#include <cuda_fp16.h>

#include <algorithm>

#include "corner_pool_kernel.cuh"

namespace cornernet {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 30;
constexpr int64_t kMaxPlanes = 1 << 16;  // of a grid; blocks take further planes in turn
constexpr int kMaxBands = 8;             // at 8 the rows of a plane are read 4.5 times on average
constexpr size_t kSharedBytes = 48 << 10;
constexpr size_t kVectorBytes = 16;
constexpr size_t kStagingBytes =
    kThreads * kVectorBytes + kThreads / 32 * rowsOfThread(true) * kVectorBytes;

using Kernel = void (*)(Pooling);

bool isKnown(MapFormat format) {
  return format == MapFormat::kFloatLinear || format == MapFormat::kHalfLinear ||
         format == MapFormat::kHalfChannelsLast8;
}

bool isEmpty(MapShape s) {
  return s.batch == 0 || s.channels == 0 || s.height == 0 || s.width == 0;
}

// No side is negative or too long, and padded to whole vectors the tensor has less than 2^62
// elements.
bool isPossible(MapShape s) {
  if (s.channels < 0) return false;  // before it is rounded up
  int64_t elements = 1;
  for (const int64_t side : {s.batch, (s.channels + 7) / 8 * 8, s.height, s.width}) {
    if (side < 0 || side > kMaxSide) return false;
    if (side > 0 && elements > (int64_t{1} << 62) / side) return false;
    elements *= std::max<int64_t>(side, 1);
  }
  return true;
}

int vectorsOfRow(MapFormat format, MapShape shape) {
  const int elements = format == MapFormat::kFloatLinear  ? 4
                       : format == MapFormat::kHalfLinear ? 8
                                                          : 1;
  return static_cast<int>((shape.width + elements - 1) / elements);
}

int64_t planesOf(MapFormat format, MapShape shape) {
  const bool channelsLast = format == MapFormat::kHalfChannelsLast8;
  return shape.batch * (channelsLast ? (shape.channels + 7) / 8 : shape.channels);
}

bool isAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0;
}

template <Corner corner>
Kernel kernelOf(MapFormat format, bool whole) {
  constexpr bool kTopLeft = corner == Corner::kTopLeft;
  switch (format) {
    case MapFormat::kFloatLinear:
      return whole ? cornerPoolKernel<Variant<float, false, true, kTopLeft>>
                   : cornerPoolKernel<Variant<float, false, false, kTopLeft>>;
    case MapFormat::kHalfLinear:
      return whole ? cornerPoolKernel<Variant<__half, false, true, kTopLeft>>
                   : cornerPoolKernel<Variant<__half, false, false, kTopLeft>>;
    default:
      return cornerPoolKernel<Variant<__half, true, true, kTopLeft>>;
  }
}

// Choose lanes, warps and bands; return the threads of a block.
int shapeBlocks(Pooling& p, int rows, bool channelsLast, int multiprocessors) {
  p.lanes = 1;
  while (p.lanes < std::min(p.vectors, 32))
    p.lanes *= 2;
  p.warpsX = p.vectors > 64 ? 4 : p.vectors > 32 ? 2 : 1;
  const int rowsOfWarp = 32 / p.lanes * rows;
  const int warpsY = std::min(kThreads / 32 / p.warpsX, (p.height - 1) / rowsOfWarp + 1);
  const int rowsOfPass = rowsOfWarp * warpsY;
  const int64_t passes = (p.height - 1) / rowsOfPass + 1;
  // Linear maps are read once, whatever the size: one band.
  const int64_t fitting =
      std::max<int64_t>(multiprocessors / p.planes, 1);  // in one wave of blocks
  const int64_t bands = channelsLast ? std::min<int64_t>({fitting, passes, kMaxBands}) : 1;
  const int64_t passesOfBand = (passes + bands - 1) / bands;
  p.bands = static_cast<int>((passes + passesOfBand - 1) / passesOfBand);
  p.bandRows = static_cast<int>(std::min<int64_t>(passesOfBand * rowsOfPass, p.height));
  return 32 * p.warpsX * warpsY;
}

}  // namespace

size_t cornerPoolWorkspaceBytes(MapFormat format, MapShape shape) {
  if (!isKnown(format) || !isPossible(shape) || isEmpty(shape)) return 0;
  const size_t carry = vectorsOfRow(format, shape) * kVectorBytes;
  if (carry + kStagingBytes <= kSharedBytes) return 0;
  const int bands = format == MapFormat::kHalfChannelsLast8 ? kMaxBands : 1;
  return std::min(planesOf(format, shape), kMaxPlanes) * bands * carry;
}

cudaError_t launchCornerPool(Corner corner, MapFormat format, const void* vertical,
                             const void* horizontal, void* output, MapShape shape, void* workspace,
                             size_t workspaceBytes, cudaStream_t stream) {
  const bool channelsLast = format == MapFormat::kHalfChannelsLast8;
  const bool knownCorner = corner == Corner::kTopLeft || corner == Corner::kBottomRight;
  if (!knownCorner || !isKnown(format) || !isPossible(shape)) return cudaErrorInvalidValue;
  if (isEmpty(shape)) return cudaSuccess;
  if (!vertical || !horizontal || !output) return cudaErrorInvalidValue;
  const bool aligned = isAligned(vertical) && isAligned(horizontal) && isAligned(output);
  if (channelsLast && !aligned) return cudaErrorInvalidValue;
  const size_t wanted = cornerPoolWorkspaceBytes(format, shape);
  if (wanted > 0 && (!workspace || workspaceBytes < wanted || !isAligned(workspace))) {
    return cudaErrorInvalidValue;
  }

  int device = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;

  Pooling p{};
  p.vertical = vertical;
  p.horizontal = horizontal;
  p.output = output;
  p.carry = wanted > 0 ? static_cast<uint4*>(workspace) : nullptr;
  p.planes = planesOf(format, shape);
  p.groups = p.planes / shape.batch;
  p.height = static_cast<int>(shape.height);
  p.width = static_cast<int>(shape.width);
  p.vectors = vectorsOfRow(format, shape);
  const int perVector = format == MapFormat::kFloatLinear ? 4 : 8;
  const bool whole = channelsLast || (aligned && shape.width % perVector == 0);
  const int rows = rowsOfThread(whole);
  const int threads = shapeBlocks(p, rows, channelsLast, multiprocessors);
  const size_t staging = (threads + threads / 32 * rows) * kVectorBytes;

  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min(p.planes, kMaxPlanes) * p.bands));
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = staging + (p.carry ? 0 : p.vectors * kVectorBytes);
  config.stream = stream;
  const Kernel kernel = corner == Corner::kTopLeft ? kernelOf<Corner::kTopLeft>(format, whole)
                                                   : kernelOf<Corner::kBottomRight>(format, whole);
  return cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace cornernet

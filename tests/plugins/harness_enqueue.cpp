// Pooling through the plugin, for plugin_harness.cpp: on poisoned memory, captured where there are
// graphs, exact against running maxima.
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "device.h"
#include "harness.h"

namespace harness {
namespace {

using namespace nvinfer1;

constexpr unsigned char kPoison = 0xCD;
constexpr size_t kGuard = 256;  // bytes behind a map that nobody may write

struct Layout {
  DataType type;
  TensorFormat format;
  int64_t batch, channels, height, width;

  bool channelsLast() const { return format == TensorFormat::kHWC8; }
  int64_t paddedChannels() const { return channelsLast() ? (channels + 7) / 8 * 8 : channels; }
  size_t elements() const { return batch * paddedChannels() * height * width; }
  size_t bytes() const { return elements() * (type == DataType::kFLOAT ? 4 : 2); }
  size_t at(int64_t n, int64_t c, int64_t y, int64_t x) const {
    return channelsLast() ? ((n * height + y) * width + x) * paddedChannels() + c
                          : ((n * channels + c) * height + y) * width + x;
  }
  PluginTensorDesc desc() const { return tensor(type, format, {batch, channels, height, width}); }
};

float rounded(float value, DataType type) {
  return type == DataType::kFLOAT ? value : __half2float(__float2half(value));
}

// Values with many equal ones and some infinities; 0 in padding channels.
std::vector<float> randomMap(const Layout& layout, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> map(layout.elements(), 0);
  for (int64_t n = 0; n < layout.batch; ++n)
    for (int64_t c = 0; c < layout.channels; ++c)
      for (int64_t y = 0; y < layout.height; ++y)
        for (int64_t x = 0; x < layout.width; ++x) {
          float value = rounded(normal(random), layout.type);
          if (random() % 8 == 0) value = std::round(value);
          if (random() % 4 == 0) value = -INFINITY;
          map[layout.at(n, c, y, x)] = value;
        }
  return map;
}

// Corner pooling by its definition, a running maximum from the far side in each direction.
std::vector<float> pooled(const Layout& layout, bool topLeft, const std::vector<float>& vertical,
                          const std::vector<float>& horizontal) {
  std::vector<float> down = vertical, along = horizontal, sum(vertical.size());
  for (int64_t n = 0; n < layout.batch; ++n)
    for (int64_t c = 0; c < layout.paddedChannels(); ++c)
      for (int64_t i = 0; i < layout.height; ++i)
        for (int64_t j = 0; j < layout.width; ++j) {
          const int64_t y = topLeft ? layout.height - 1 - i : i, step = topLeft ? 1 : -1;
          const int64_t x = topLeft ? layout.width - 1 - j : j;
          const size_t here = layout.at(n, c, y, x);
          if (i > 0) down[here] = std::max(down[here], down[layout.at(n, c, y + step, x)]);
          if (j > 0) along[here] = std::max(along[here], along[layout.at(n, c, y, x + step)]);
          sum[here] = rounded(down[here] + along[here], layout.type);
        }
  return sum;
}

std::vector<unsigned char> packed(const Layout& layout, const std::vector<float>& values) {
  std::vector<unsigned char> bytes(layout.bytes());
  for (size_t i = 0; i < values.size(); ++i) {
    const __half half = __float2half(values[i]);
    if (layout.type == DataType::kFLOAT) std::memcpy(&bytes[i * 4], &values[i], 4);
    if (layout.type == DataType::kHALF) std::memcpy(&bytes[i * 2], &half, 2);
  }
  return bytes;
}

// Memory of the device between guards, poisoned at first.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes), memory_(device::allocate(bytes + kGuard)) {
    poison();
  }
  ~Memory() { device::release(memory_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void poison() {
    const std::vector<unsigned char> all(bytes_ + kGuard, kPoison);
    device::write(memory_, all.data(), all.size());
  }
  void write(const std::vector<unsigned char>& data) {
    device::write(memory_, data.data(), data.size());
  }
  // Whether it holds `data`, and behind it poison.
  bool holds(std::vector<unsigned char> data) const {
    data.resize(bytes_ + kGuard, kPoison);
    std::vector<unsigned char> there(data.size());
    device::read(there.data(), memory_, there.size());
    return there == data;
  }
  void* get() const { return memory_; }

 private:
  size_t bytes_;
  void* memory_;
};

struct Maps {
  explicit Maps(size_t bytes) : vertical(bytes), horizontal(bytes), output(bytes) {}
  Memory vertical, horizontal, output;
};

void checkPooling(const Plugin& plugin, bool topLeft, const Layout& layout) {
  const auto vertical = randomMap(layout, 1), horizontal = randomMap(layout, 2);
  const auto expected = packed(layout, pooled(layout, topLeft, vertical, horizontal));
  Maps maps(layout.bytes());
  maps.vertical.write(packed(layout, vertical));
  maps.horizontal.write(packed(layout, horizontal));
  const PluginTensorDesc inputs[] = {layout.desc(), layout.desc()}, output = layout.desc();
  const DynamicPluginTensorDesc dynamic[] = {fixed(inputs[0]), fixed(inputs[1])};
  Memory workspace(build(plugin).getWorkspaceSize(dynamic, 2, dynamic, 1));
  const void* from[] = {maps.vertical.get(), maps.horizontal.get()};
  void* to[] = {maps.output.get()};
  CHECK(runtime(plugin).onShapeChange(inputs, 2, &output, 1) == 0);
  device::Captured work([&](cudaStream_t stream) {
    return runtime(plugin).enqueue(inputs, &output, from, to, workspace.get(), stream);
  });
  CHECK(work.status() == 0);
  CHECK(work.holdsOnly(layout.elements() > 0 ? 1 : 0));
  const bool once = CHECK(maps.output.holds(expected));
  maps.output.poison();
  work.run();
  const bool twice = CHECK(maps.output.holds(expected));
  if (!once || !twice) {
    std::printf("  type %d format %d %ldx%ldx%ldx%ld\n", static_cast<int>(layout.type),
                static_cast<int>(layout.format), layout.batch, layout.channels, layout.height,
                layout.width);
  }
  CHECK(maps.vertical.holds(packed(layout, vertical)));
  CHECK(maps.horizontal.holds(packed(layout, horizontal)));
}

struct Call {
  PluginTensorDesc first, second, output;
  size_t offset = 0;  // of the second input, in bytes
  bool nullInput = false;
};

void checkRefusals(const Plugin& plugin) {
  const auto half = DataType::kHALF;
  const auto linear = TensorFormat::kLINEAR, channelsLast = TensorFormat::kHWC8;
  Maps maps(1 << 16);
  const auto enqueue = [&](const Call& call) {
    return [&plugin, &maps, call] {
      const PluginTensorDesc inputs[] = {call.first, call.second};
      const void* from[] = {call.nullInput ? nullptr : maps.vertical.get(),
                            static_cast<char*>(maps.horizontal.get()) + call.offset};
      void* to[] = {maps.output.get()};
      return runtime(plugin).enqueue(inputs, &call.output, from, to, nullptr, nullptr) != 0;
    };
  };
  const PluginTensorDesc good = tensor(half, channelsLast, {1, 8, 4, 4});
  const PluginTensorDesc narrow = tensor(half, channelsLast, {1, 8, 4, 3});
  const PluginTensorDesc flat = tensor(half, linear, {1, 8, 4, 4});
  const PluginTensorDesc real = tensor(DataType::kFLOAT, linear, {1, 8, 4, 4});
  const PluginTensorDesc integer = tensor(DataType::kINT8, linear, {1, 8, 4, 4});
  const PluginTensorDesc large = tensor(half, linear, {2, 1 << 10, 1 << 10, 1 << 10});
  const PluginTensorDesc wide = tensor(half, linear, {1, 1, 1, 20000});
  CHECK(isRefused(enqueue({good, narrow, good}), "input 1", "[1, 8, 4, 4]", "[1, 8, 4, 3]"));
  CHECK(isRefused(enqueue({good, good, narrow}), "the output", "[1, 8, 4, 3]"));
  CHECK(isRefused(enqueue({good, flat, good}), "input 1", "fp16 linear"));
  CHECK(isRefused(enqueue({flat, real, flat}), "input 1", "fp32 linear"));
  CHECK(isRefused(enqueue({integer, integer, integer}), "input 0", "int8 linear"));
  CHECK(isRefused(enqueue({large, large, large}), "at most 2147483647"));
  CHECK(isRefused(enqueue({wide, wide, wide}), "workspace of 40000 bytes", "got none"));
  CHECK(isRefused(enqueue({good, good, good, 8}), "could not launch", "multiples of 16"));
  CHECK(isRefused(enqueue({good, good, good, 0, true}), "could not launch", "none null"));
  CHECK(isRefused(
      [&] {
        return runtime(plugin).enqueue(&good, nullptr, nullptr, nullptr, nullptr, nullptr) != 0;
      },
      "null pointer"));
  CHECK(maps.output.holds(std::vector<unsigned char>(1 << 16, kPoison)));
}

}  // namespace

void walkEnqueue(const Creators& creators) {
  constexpr std::pair<DataType, TensorFormat> kFormats[] = {
      {DataType::kFLOAT, TensorFormat::kLINEAR},
      {DataType::kHALF, TensorFormat::kLINEAR},
      {DataType::kHALF, TensorFormat::kHWC8}};
  constexpr int64_t kShapes[][4] = {{1, 1, 1, 1},   {2, 9, 5, 7},   {1, 3, 33, 17}, {1, 8, 20, 24},
                                    {3, 2, 1, 130}, {1, 2, 130, 1}, {1, 2, 0, 5},   {0, 2, 4, 5}};
  for (const bool topLeft : {true, false}) {
    const Plugin made = make(topLeft ? creators.topLeft : creators.bottomRight);
    // As in an engine: a context has a copy of its own, which takes every shape in turn.
    const Plugin plugin(runtime(made).attachToContext(nullptr));
    for (const auto& [type, format] : kFormats) {
      for (const auto& shape : kShapes) {
        checkPooling(plugin, topLeft, {type, format, shape[0], shape[1], shape[2], shape[3]});
      }
    }
    checkPooling(plugin, topLeft, {DataType::kFLOAT, TensorFormat::kLINEAR, 1, 2, 3, 10000});
    checkPooling(plugin, topLeft, {DataType::kHALF, TensorFormat::kHWC8, 1, 8, 3, 2500});
    checkRefusals(plugin);
  }
}

}  // namespace harness

// What the parts of plugin_harness.cpp share: checks, the library under test, tensors.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>

namespace harness {

inline int checks = 0;
inline int failures = 0;

inline bool check(bool holds, const char* what, const char* file, int line) {
  ++checks;
  if (!holds) {
    ++failures;
    std::printf("FAILED %s:%d: %s\n", file, line, what);
  }
  return holds;
}
#define CHECK(condition) harness::check((condition), #condition, __FILE__, __LINE__)

// The logger of a TensorRT that could be, and its finder.
class Log final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder {
 public:
  void log(Severity severity, const char* message) noexcept override {
    ++count;
    last = message;
    allErrors = allErrors && severity == Severity::kERROR;
  }
  nvinfer1::ILogger* findLogger() override {
    if (throws) throw std::runtime_error("no logger today");
    return hasLogger ? this : nullptr;
  }
  int count = 0;
  std::string last;
  bool allErrors = true;
  bool throws = false;
  bool hasLogger = true;
};
inline Log logged;

// Whether `request` fails, and logs one error that contains all of `words`.
template <typename Request, typename... Words>
bool isRefused(Request request, Words... words) {
  const int before = logged.count;
  logged.last.clear();
  const bool failed = request();
  const bool told = logged.count == before + 1 && logged.allErrors;
  const bool found = ((logged.last.find(words) != std::string::npos) && ...);
  if (!failed || !told || !found) {
    std::printf("  failed: %d, messages: %d, the last: %s\n", failed, logged.count - before,
                logged.last.c_str());
  }
  return failed && told && found;
}

using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

struct Creators {
  nvinfer1::IPluginCreatorV3One* topLeft;
  nvinfer1::IPluginCreatorV3One* bottomRight;
};

inline Plugin make(nvinfer1::IPluginCreatorV3One* creator) {
  const nvinfer1::PluginFieldCollection none{};
  return Plugin(creator->createPlugin("pool", &none, nvinfer1::TensorRTPhase::kBUILD));
}

inline nvinfer1::IPluginV3OneCore& core(const Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneCore*>(
      plugin->getCapabilityInterface(nvinfer1::PluginCapabilityType::kCORE));
}
inline nvinfer1::IPluginV3OneBuild& build(const Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneBuild*>(
      plugin->getCapabilityInterface(nvinfer1::PluginCapabilityType::kBUILD));
}
inline nvinfer1::IPluginV3OneRuntime& runtime(const Plugin& plugin) {
  return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
      plugin->getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
}

inline nvinfer1::PluginTensorDesc tensor(nvinfer1::DataType type, nvinfer1::TensorFormat format,
                                         std::initializer_list<int64_t> shape) {
  nvinfer1::PluginTensorDesc desc{};
  desc.type = type;
  desc.format = format;
  for (const int64_t side : shape)
    desc.dims.d[desc.dims.nbDims++] = side;
  return desc;
}

// A tensor of which TensorRT knows the smallest and the largest shape.
inline nvinfer1::DynamicPluginTensorDesc between(nvinfer1::PluginTensorDesc desc,
                                                 nvinfer1::Dims min, nvinfer1::Dims max) {
  return {desc, min, max, min};
}
inline nvinfer1::DynamicPluginTensorDesc fixed(nvinfer1::PluginTensorDesc desc) {
  return {desc, desc.dims, desc.dims, desc.dims};
}

void walkInterfaces(const Creators& creators, const char* version);
void walkBuild(const Creators& creators);
// Pool maps on the device and compare with the reference.
void walkEnqueue(const Creators& creators);

}  // namespace harness

// Corner pooling for TensorRT: the plugins TopLeftPool and BottomRightPool, version 1, namespace
// cornernet. TensorRT only; the kernel is in corner_pool.cu.
//
// No method throws or aborts. One that fails returns what its interface has for that, and logs what
// was expected and what came.
#pragma once

#include <NvInferRuntime.h>

#include <cstddef>
#include <cstdint>

#include "corner_pool.cuh"

namespace cornernet {

constexpr char kPluginVersion[] = "1";
constexpr char kPluginNamespace[] = "cornernet";
constexpr char kCornerField[] = "corner";  // the one field that a plugin serialises: an int32

constexpr const char* pluginNameOf(Corner corner) {
  return corner == Corner::kTopLeft ? "TopLeftPool" : "BottomRightPool";
}

// Two maps in, one out: four dimensions, all three alike in shape, type and format, which is FP32
// linear, FP16 linear or FP16 kHWC8. Has no state but its corner.
class CornerPoolPlugin final : public nvinfer1::IPluginV3,
                               public nvinfer1::IPluginV3OneCore,
                               public nvinfer1::IPluginV3OneBuild,
                               public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit CornerPoolPlugin(Corner corner) noexcept;
  CornerPoolPlugin(const CornerPoolPlugin&) = delete;
  CornerPoolPlugin& operator=(const CornerPoolPlugin&) = delete;

  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override;
  nvinfer1::IPluginV3* clone() noexcept override;

  // Core
  const char* getPluginName() const noexcept override;
  const char* getPluginVersion() const noexcept override;
  const char* getPluginNamespace() const noexcept override;

  // Build
  int32_t getNbOutputs() const noexcept override;
  int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, int32_t outputCount,
                             const nvinfer1::DataType* inputTypes,
                             int32_t inputCount) const noexcept override;
  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t inputCount,
                          const nvinfer1::DimsExprs* shapeInputs, int32_t shapeInputCount,
                          nvinfer1::DimsExprs* outputs, int32_t outputCount,
                          nvinfer1::IExprBuilder& builder) noexcept override;
  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t inputCount, int32_t outputCount) noexcept override;
  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t inputCount,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t outputCount) noexcept override;
  // Enough for the largest size of the profile and all below.
  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t inputCount,
                          const nvinfer1::DynamicPluginTensorDesc* outputs,
                          int32_t outputCount) const noexcept override;
  // Names the library's version, so that timings of another kernel are not taken for this one's.
  const char* getTimingCacheID() noexcept override;
  const char* getMetadataString() noexcept override;

  // Runtime
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t inputCount,
                        const nvinfer1::PluginTensorDesc* outputs,
                        int32_t outputCount) noexcept override;
  // Launches one kernel and nothing else, so it may be captured into a graph.
  int32_t enqueue(const nvinfer1::PluginTensorDesc* inputDescs,
                  const nvinfer1::PluginTensorDesc* outputDescs, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override;
  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

 private:
  Corner corner_;
  int32_t serialisedCorner_;
  nvinfer1::PluginField field_;
  nvinfer1::PluginFieldCollection fields_;
};

}  // namespace cornernet

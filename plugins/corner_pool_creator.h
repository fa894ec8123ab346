// Makes corner pooling plugins for TensorRT.
#pragma once

#include <NvInferRuntime.h>

#include "corner_pool.cuh"

namespace cornernet {

class CornerPoolCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit CornerPoolCreator(Corner corner) noexcept : corner_(corner) {}

  const char* getPluginName() const noexcept override;
  const char* getPluginVersion() const noexcept override;
  const char* getPluginNamespace() const noexcept override;
  // None: what TensorRT finds in this list it looks for in the ONNX node, and warns if it is not
  // there.
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override;
  // Takes no field when building, or the one that a plugin serialised: `corner`, which must be this
  // creator's. Anything else gives null.
  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;

 private:
  Corner corner_;
};

}  // namespace cornernet

#include "corner_pool_creator.h"

#include <cstring>
#include <new>

#include "corner_pool_plugin.h"
#include "plugin_log.h"

namespace cornernet {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

// Whether a field is `corner` as serialised by a plugin of this corner.
bool isCorner(const char* name, const PluginField& field, Corner corner) {
  if (!field.name || std::strcmp(field.name, kCornerField) != 0) {
    reportError("%s: expected no field but '%s', got '%s'", name, kCornerField,
                field.name ? field.name : "(no name)");
    return false;
  }
  if (field.type != PluginFieldType::kINT32 || field.length != 1 || !field.data) {
    reportError("%s: expected field '%s' to be 1 int32 (type %d), got %d of type %d%s", name,
                kCornerField, static_cast<int>(PluginFieldType::kINT32), field.length,
                static_cast<int>(field.type), field.data ? "" : " without data");
    return false;
  }
  int32_t value = 0;
  std::memcpy(&value, field.data, sizeof(value));  // wherever it lies in a plan
  if (value == static_cast<int32_t>(corner)) return true;
  reportError("%s: expected field '%s' to be %d, got %d", name, kCornerField,
              static_cast<int>(corner), value);
  return false;
}

}  // namespace

const char* CornerPoolCreator::getPluginName() const noexcept {
  return pluginNameOf(corner_);
}

const char* CornerPoolCreator::getPluginVersion() const noexcept {
  return kPluginVersion;
}

const char* CornerPoolCreator::getPluginNamespace() const noexcept {
  return kPluginNamespace;
}

const PluginFieldCollection* CornerPoolCreator::getFieldNames() noexcept {
  static constexpr PluginFieldCollection kNone{};
  return &kNone;
}

nvinfer1::IPluginV3* CornerPoolCreator::createPlugin(const char*,
                                                     const PluginFieldCollection* fields,
                                                     nvinfer1::TensorRTPhase phase) noexcept {
  const char* name = getPluginName();
  if (!fields || fields->nbFields < 0 || (fields->nbFields > 0 && !fields->fields)) {
    reportError("%s: expected a collection of fields, got %d at %p", name,
                fields ? fields->nbFields : 0,
                fields ? static_cast<const void*>(fields->fields) : nullptr);
    return nullptr;
  }
  for (int32_t i = 0; i < fields->nbFields; ++i) {
    if (!isCorner(name, fields->fields[i], corner_)) return nullptr;
  }
  if (phase == nvinfer1::TensorRTPhase::kRUNTIME && fields->nbFields == 0) {
    reportError("%s: expected the field '%s' of a serialised plugin, got none", name, kCornerField);
    return nullptr;
  }
  auto* plugin = new (std::nothrow) CornerPoolPlugin(corner_);
  if (!plugin) reportError("%s: no memory for a plugin", name);
  return plugin;
}

}  // namespace cornernet

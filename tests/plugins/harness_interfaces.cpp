// Creators, fields, copies and the runtime's queries, for plugin_harness.cpp.
#include <cstring>
#include <vector>

#include "harness.h"

namespace harness {
namespace {

using namespace nvinfer1;

bool same(const char* a, const char* b) {
  return a && b && std::strcmp(a, b) == 0;
}

void checkNames(const Creators& creators) {
  CHECK(same(creators.topLeft->getPluginName(), "TopLeftPool"));
  CHECK(same(creators.bottomRight->getPluginName(), "BottomRightPool"));
  for (IPluginCreatorV3One* creator : {creators.topLeft, creators.bottomRight}) {
    CHECK(same(creator->getPluginVersion(), "1"));
    CHECK(same(creator->getPluginNamespace(), "cornernet"));
    CHECK(creator->getFieldNames() != nullptr && creator->getFieldNames()->nbFields == 0);
    const Plugin plugin = make(creator);
    if (!CHECK(plugin != nullptr)) continue;
    CHECK(same(core(plugin).getPluginName(), creator->getPluginName()));
    CHECK(same(core(plugin).getPluginVersion(), "1"));
    CHECK(same(core(plugin).getPluginNamespace(), "cornernet"));
  }
}

void checkFields(IPluginCreatorV3One* creator, int32_t corner) {
  const auto create = [creator](const PluginFieldCollection* fields, TensorRTPhase phase) {
    return Plugin(creator->createPlugin("pool", fields, phase)) == nullptr;
  };
  const auto with = [&create](PluginField field) {
    return [=] {
      const PluginFieldCollection fields{1, &field};
      return create(&fields, TensorRTPhase::kBUILD);
    };
  };
  const int32_t other = 1 - corner, pair[] = {corner, corner};
  const float real = static_cast<float>(corner);
  const PluginField good("corner", &corner, PluginFieldType::kINT32, 1);
  CHECK(!with(good)());
  CHECK(isRefused(with({"radius", &corner, PluginFieldType::kINT32, 1}), "'corner'", "'radius'"));
  CHECK(isRefused(with({nullptr, &corner, PluginFieldType::kINT32, 1}), "(no name)"));
  CHECK(isRefused(with({"corner", &real, PluginFieldType::kFLOAT32, 1}), "1 int32", "of type 1"));
  CHECK(isRefused(with({"corner", pair, PluginFieldType::kINT32, 2}), "1 int32", "got 2"));
  CHECK(isRefused(with({"corner", &corner, PluginFieldType::kINT32, 0}), "got 0"));
  CHECK(isRefused(with({"corner", nullptr, PluginFieldType::kINT32, 1}), "without data"));
  CHECK(isRefused(with({"corner", &other, PluginFieldType::kINT32, 1}), "expected field 'corner'"));

  const PluginField both[] = {good, {"radius", &corner, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection none{}, negative{-1, both}, nowhere{1, nullptr}, second{2, both};
  CHECK(isRefused([&] { return create(nullptr, TensorRTPhase::kBUILD); }, "collection"));
  for (const PluginFieldCollection* wrong : {&negative, &nowhere, &second}) {
    CHECK(isRefused([&] { return create(wrong, TensorRTPhase::kBUILD); }, "expected", "got"));
    CHECK(isRefused([&] { return create(wrong, TensorRTPhase::kRUNTIME); }, "expected", "got"));
  }
  CHECK(!create(&none, TensorRTPhase::kBUILD));
  CHECK(isRefused([&] { return create(&none, TensorRTPhase::kRUNTIME); }, "serialised", "none"));
}

// As a plan does it: bytes wherever they come to lie.
void checkSerialisation(IPluginCreatorV3One* creator) {
  const Plugin plugin = make(creator);
  const PluginFieldCollection* fields = runtime(plugin).getFieldsToSerialize();
  if (!CHECK(fields && fields->nbFields == 1)) return;
  const PluginField& field = fields->fields[0];
  CHECK(same(field.name, "corner"));
  CHECK(field.type == PluginFieldType::kINT32 && field.length == 1);
  alignas(8) char plan[16] = {};
  std::memcpy(plan + 1, field.data, sizeof(int32_t));
  const PluginField read(field.name, plan + 1, field.type, field.length);
  const PluginFieldCollection readFields{1, &read};
  const Plugin again(creator->createPlugin("pool", &readFields, TensorRTPhase::kRUNTIME));
  if (!CHECK(again != nullptr)) return;
  CHECK(same(core(again).getPluginName(), creator->getPluginName()));
  const PluginFieldCollection* fieldsAgain = runtime(again).getFieldsToSerialize();
  CHECK(fieldsAgain->nbFields == 1);
  CHECK(std::memcmp(fieldsAgain->fields[0].data, field.data, sizeof(int32_t)) == 0);
}

void checkCopies(IPluginCreatorV3One* creator) {
  Plugin plugin = make(creator);
  std::vector<Plugin> copies;
  copies.emplace_back(plugin->clone());
  copies.emplace_back(runtime(plugin).attachToContext(nullptr));
  for (const Plugin& copy : copies)
    CHECK(copy != nullptr && copy != plugin);
  const std::string timing = build(plugin).getTimingCacheID();
  plugin.reset();
  for (const Plugin& copy : copies) {
    CHECK(same(core(copy).getPluginName(), creator->getPluginName()));
    CHECK(build(copy).getTimingCacheID() == timing);
    const PluginFieldCollection* fields = runtime(copy).getFieldsToSerialize();
    int32_t corner = -1;
    std::memcpy(&corner, fields->fields[0].data, sizeof(corner));
    CHECK(corner == (same(creator->getPluginName(), "TopLeftPool") ? 0 : 1));
  }
}

void checkCapabilities(IPluginCreatorV3One* creator) {
  const Plugin plugin = make(creator);
  CHECK(same(plugin->getInterfaceInfo().kind, "PLUGIN"));
  CHECK(same(core(plugin).getInterfaceInfo().kind, "PLUGIN_V3ONE_CORE"));
  CHECK(same(build(plugin).getInterfaceInfo().kind, "PLUGIN_V3ONE_BUILD"));
  CHECK(same(runtime(plugin).getInterfaceInfo().kind, "PLUGIN_V3ONE_RUNTIME"));
  CHECK(isRefused(
      [&] {
        return plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(3)) == nullptr;
      },
      "capability", "got 3"));
}

void checkShapeChange(IPluginCreatorV3One* creator) {
  const Plugin plugin = make(creator);
  const auto half = DataType::kHALF;
  const auto linear = TensorFormat::kLINEAR, channelsLast = TensorFormat::kHWC8;
  const PluginTensorDesc good = tensor(half, channelsLast, {2, 9, 7, 5});
  const auto change = [&plugin](PluginTensorDesc first, PluginTensorDesc second,
                                PluginTensorDesc output, int32_t inputs = 2, int32_t outputs = 1) {
    const PluginTensorDesc both[] = {first, second};
    return [&plugin, both = std::vector(both, both + 2), output, inputs, outputs] {
      return runtime(plugin).onShapeChange(both.data(), inputs, &output, outputs) != 0;
    };
  };
  CHECK(!change(good, good, good)());
  const PluginTensorDesc wrong[] = {
      tensor(half, channelsLast, {2, 9, 7, 6}),
      tensor(half, linear, {2, 9, 7, 5}),
      tensor(DataType::kFLOAT, linear, {2, 9, 7, 5}),
      tensor(half, TensorFormat::kCHW2, {2, 9, 7, 5}),
      tensor(half, channelsLast, {2, 9, 7}),
      tensor(half, channelsLast, {2, 9, 7, -1}),
      tensor(half, channelsLast, {2, 9, 7, 5, 1, 1, 1, 1}),
  };
  for (const PluginTensorDesc& one : wrong) {
    CHECK(isRefused(change(good, one, good), "input 1", "expected", "got"));
    CHECK(isRefused(change(good, good, one), "the output", "expected", "got"));
  }
  const PluginTensorDesc unknown = tensor(half, linear, {2, 9, 7, -1});
  CHECK(isRefused(change(unknown, unknown, unknown), "none negative", "fp16 linear [2, 9, 7, -1]"));
  const PluginTensorDesc large = tensor(half, linear, {2, 1 << 10, 1 << 10, 1 << 10});
  CHECK(isRefused(change(large, large, large), "at most 2147483647", "1024, 1024"));
  const PluginTensorDesc overflowing =
      tensor(half, linear, {int64_t{1} << 62, int64_t{1} << 62, 7, 5});
  CHECK(isRefused(change(overflowing, overflowing, overflowing), "at most 2147483647"));
  const PluginTensorDesc empty = tensor(half, linear, {0, int64_t{1} << 62, 7, 5});
  CHECK(!change(empty, empty, empty)());
  CHECK(isRefused(change(good, good, good, 3, 1), "got 3 and 1"));
  CHECK(isRefused(change(good, good, good, 2, 2), "got 2 and 2"));
  CHECK(isRefused([&] { return runtime(plugin).onShapeChange(nullptr, 2, &good, 1) != 0; },
                  "null pointer"));
}

void checkLogger(IPluginCreatorV3One* creator) {
  const int before = logged.count;
  logged.throws = true;
  CHECK(creator->createPlugin("pool", nullptr, TensorRTPhase::kBUILD) == nullptr);
  logged.throws = false;
  logged.hasLogger = false;
  CHECK(creator->createPlugin("pool", nullptr, TensorRTPhase::kBUILD) == nullptr);
  logged.hasLogger = true;
  CHECK(logged.count == before);
}

}  // namespace

void walkInterfaces(const Creators& creators, const char* version) {
  checkNames(creators);
  checkFields(creators.topLeft, 0);
  checkFields(creators.bottomRight, 1);
  std::vector<std::string> timings;
  for (IPluginCreatorV3One* creator : {creators.topLeft, creators.bottomRight}) {
    checkSerialisation(creator);
    checkCopies(creator);
    checkCapabilities(creator);
    checkShapeChange(creator);
    checkLogger(creator);
    const Plugin plugin = make(creator);
    timings.emplace_back(build(plugin).getTimingCacheID());
    CHECK(timings.back() == creator->getPluginName() + std::string(" ") + version);
    CHECK(build(plugin).getMetadataString() == std::string("cornernet_plugins version ") + version +
                                                   " for TensorRT " +
                                                   std::to_string(NV_TENSORRT_MAJOR));
  }
  CHECK(timings[0] != timings[1]);
}

}  // namespace harness

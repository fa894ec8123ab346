// What TensorRT asks while it builds an engine, for plugin_harness.cpp.
#include <algorithm>
#include <deque>
#include <limits>
#include <vector>

#include "harness.h"

namespace harness {
namespace {

using namespace nvinfer1;

// A constant, or a side that is not known yet. TensorRT's own are not to be had without it.
class Side final : public IDimensionExpr, private apiv::VDimensionExpr {
 public:
  explicit Side(int64_t value) : value_(value) { mImpl = this; }

 private:
  bool isConstant() const override { return value_ >= 0; }
  int64_t getConstantValue() const override {
    return value_ >= 0 ? value_ : std::numeric_limits<int64_t>::min();
  }
  bool isSizeTensor() const override { return false; }
  int64_t value_;
};

class Builder final : public IExprBuilder, private apiv::VExprBuilder {
 public:
  Builder() { mImpl = this; }
  DimsExprs shape(std::initializer_list<int64_t> values) {
    DimsExprs exprs{};
    for (const int64_t value : values)
      exprs.d[exprs.nbDims++] = &made_.emplace_back(value);
    return exprs;
  }

 private:
  const IDimensionExpr* constant(int64_t value) override { return &made_.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&,
                                  const IDimensionExpr&) override {
    return nullptr;
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) override {
    return nullptr;
  }
  std::deque<Side> made_;
};

bool isOffered(DataType type, TensorFormat format) {
  return (type == DataType::kFLOAT && format == TensorFormat::kLINEAR) ||
         (type == DataType::kHALF && format == TensorFormat::kLINEAR) ||
         (type == DataType::kHALF && format == TensorFormat::kHWC8);
}

// Every type in every format, in every place.
void checkFormats(const Plugin& plugin) {
  std::vector<PluginTensorDesc> all;
  for (int32_t type = 0; type < EnumMax<DataType>(); ++type) {
    for (int32_t format = 0; format < EnumMax<TensorFormat>(); ++format) {
      all.push_back(
          tensor(static_cast<DataType>(type), static_cast<TensorFormat>(format), {1, 8, 4, 4}));
    }
  }
  int accepted = 0;
  for (const PluginTensorDesc& first : all) {
    std::vector<DynamicPluginTensorDesc> tensors(3, fixed(first));
    const bool offered = isOffered(first.type, first.format);
    accepted += build(plugin).supportsFormatCombination(0, tensors.data(), 2, 1);
    CHECK(build(plugin).supportsFormatCombination(0, tensors.data(), 2, 1) == offered);
    if (!offered) continue;  // TensorRT asks on only after a yes
    for (int position = 1; position < 3; ++position) {
      for (const PluginTensorDesc& one : all) {
        tensors[position] = fixed(one);
        CHECK(build(plugin).supportsFormatCombination(position, tensors.data(), 2, 1) ==
              (one.type == first.type && one.format == first.format));
      }
      tensors[position] = fixed(first);
    }
    CHECK(!build(plugin).supportsFormatCombination(-1, tensors.data(), 2, 1));
    CHECK(!build(plugin).supportsFormatCombination(3, tensors.data(), 2, 1));
    CHECK(!build(plugin).supportsFormatCombination(0, tensors.data(), 1, 1));
    CHECK(!build(plugin).supportsFormatCombination(0, tensors.data(), 2, 2));
  }
  CHECK(accepted == 3);
  CHECK(!build(plugin).supportsFormatCombination(0, nullptr, 2, 1));
}

void checkTypes(const Plugin& plugin) {
  CHECK(build(plugin).getNbOutputs() == 1);
  for (int32_t i = 0; i < EnumMax<DataType>(); ++i) {
    for (int32_t j = 0; j < EnumMax<DataType>(); ++j) {
      const DataType types[] = {static_cast<DataType>(i), static_cast<DataType>(j)};
      DataType output = DataType::kBOOL;
      const auto ask = [&] { return build(plugin).getOutputDataTypes(&output, 1, types, 2) != 0; };
      if (i == j && (types[0] == DataType::kFLOAT || types[0] == DataType::kHALF)) {
        CHECK(!ask() && output == types[0]);
      } else {
        CHECK(isRefused(ask, "fp32", "fp16", "got " + std::to_string(i)));
      }
    }
  }
  const DataType floats[] = {DataType::kFLOAT, DataType::kFLOAT, DataType::kFLOAT};
  DataType outputs[2];
  CHECK(isRefused([&] { return build(plugin).getOutputDataTypes(outputs, 1, floats, 3) != 0; },
                  "2 inputs"));
  CHECK(isRefused([&] { return build(plugin).getOutputDataTypes(outputs, 2, floats, 2) != 0; },
                  "1 output"));
  CHECK(isRefused([&] { return build(plugin).getOutputDataTypes(outputs, 1, nullptr, 2) != 0; },
                  "null pointer"));
}

void checkShapes(const Plugin& plugin) {
  Builder builder;
  const auto ask = [&](DimsExprs first, DimsExprs second, int32_t inputs = 2,
                       int32_t shapeInputs = 0, int32_t outputs = 1) {
    return [&, first, second, inputs, shapeInputs, outputs] {
      const DimsExprs both[] = {first, second};
      DimsExprs output{};
      const bool failed = build(plugin).getOutputShapes(both, inputs, nullptr, shapeInputs, &output,
                                                        outputs, builder) != 0;
      if (!failed) {
        CHECK(output.nbDims == 4);
        CHECK(std::equal(first.d, first.d + 4, output.d));
      }
      return failed;
    };
  };
  const DimsExprs fixedShape = builder.shape({2, 128, 64, 96});
  const DimsExprs free = builder.shape({-1, 128, -1, -1});
  CHECK(!ask(fixedShape, builder.shape({2, 128, 64, 96}))());
  CHECK(!ask(free, builder.shape({-1, 128, -1, -1}))());
  CHECK(!ask(fixedShape, free)());
  CHECK(
      isRefused(ask(fixedShape, builder.shape({2, 128, 64, 95})), "got 96 and 95", "dimension 3"));
  CHECK(isRefused(ask(free, builder.shape({-1, 64, -1, -1})), "got 128 and 64", "dimension 1"));
  CHECK(isRefused(ask(fixedShape, builder.shape({2, 128, 64})), "got 4 and 3"));
  CHECK(isRefused(ask(fixedShape, fixedShape, 1), "2 inputs"));
  CHECK(isRefused(ask(fixedShape, fixedShape, 2, 1), "shape inputs"));
  CHECK(isRefused(ask(fixedShape, fixedShape, 2, 0, 2), "1 output"));
}

void checkConfiguration(const Plugin& plugin) {
  const auto half = DataType::kHALF;
  const auto linear = TensorFormat::kLINEAR;
  const auto configure = [&](DynamicPluginTensorDesc first, DynamicPluginTensorDesc second,
                             DynamicPluginTensorDesc output) {
    return [&plugin, first, second, output] {
      const DynamicPluginTensorDesc both[] = {first, second};
      return build(plugin).configurePlugin(both, 2, &output, 1) != 0;
    };
  };
  const auto shape = [&](std::initializer_list<int64_t> sides) {
    return tensor(half, linear, sides).dims;
  };
  const auto free = tensor(half, linear, {-1, 128, -1, -1});
  const auto dynamic = between(free, shape({1, 128, 16, 16}), shape({8, 128, 256, 256}));
  const auto small = fixed(tensor(half, linear, {1, 128, 16, 16}));
  CHECK(!configure(dynamic, dynamic, dynamic)());
  CHECK(!configure(small, small, small)());
  CHECK(isRefused(configure(small, fixed(tensor(half, linear, {1, 128, 16, 17})), small), "input 1",
                  "[1, 128, 16, 17]"));
  CHECK(
      isRefused(configure(small, fixed(tensor(DataType::kFLOAT, linear, {1, 128, 16, 16})), small),
                "input 1", "fp32 linear"));
  const auto integer = fixed(tensor(DataType::kINT8, linear, {1, 128, 16, 16}));
  CHECK(isRefused(configure(integer, integer, integer), "input 0", "int8 linear"));
  const auto huge = between(free, shape({1, 128, 16, 16}), shape({1, 128, 4096, 4096}));
  CHECK(isRefused(configure(huge, huge, huge), "at most 2147483647", "4096, 4096"));
  CHECK(isRefused([&] { return build(plugin).configurePlugin(nullptr, 2, &small, 1) != 0; },
                  "null pointer"));
}

void checkWorkspace(const Plugin& plugin) {
  const auto bytes = [&](PluginTensorDesc desc, std::initializer_list<int64_t> smallest) {
    const auto tensors =
        std::vector(2, between(desc, tensor(desc.type, desc.format, smallest).dims, desc.dims));
    return build(plugin).getWorkspaceSize(tensors.data(), 2, tensors.data(), 1);
  };
  const auto linear = TensorFormat::kLINEAR, channelsLast = TensorFormat::kHWC8;
  CHECK(bytes(tensor(DataType::kHALF, linear, {8, 128, 256, 256}), {1, 128, 1, 1}) == 0);
  CHECK(bytes(tensor(DataType::kHALF, channelsLast, {8, 128, 256, 256}), {1, 128, 1, 1}) == 0);
  // A row of maxima a plane, of the largest size: 2 planes of 2,500 vectors of 16 bytes.
  CHECK(bytes(tensor(DataType::kHALF, linear, {1, 2, 65, 20000}), {1, 2, 1, 1}) == 80'000);
  CHECK(bytes(tensor(DataType::kFLOAT, linear, {1, 2, 65, 10000}), {1, 2, 1, 1}) == 80'000);
  // Channels-last a row for each of 8 bands: 2 groups of channels of 2,500 vectors.
  CHECK(bytes(tensor(DataType::kHALF, channelsLast, {1, 9, 18, 2500}), {1, 9, 1, 1}) == 640'000);
  CHECK(isRefused(
      [&] { return bytes(tensor(DataType::kINT8, linear, {1, 2, 3, 20000}), {1, 2, 1, 1}) == 0; },
      "int8"));
  CHECK(build(plugin).getNbTactics() == 0);
  CHECK(build(plugin).getFormatCombinationLimit() >= 3);
  CHECK(runtime(plugin).setTactic(0) == 0);
}

}  // namespace

void walkBuild(const Creators& creators) {
  for (IPluginCreatorV3One* creator : {creators.topLeft, creators.bottomRight}) {
    const Plugin plugin = make(creator);
    checkFormats(plugin);
    checkTypes(plugin);
    checkShapes(plugin);
    checkConfiguration(plugin);
    checkWorkspace(plugin);
  }
}

}  // namespace harness

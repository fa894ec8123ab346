// Loads the built library as TensorRT would and walks all that its plugins answer.
//
//   plugin_harness LIBRARY VERSION interfaces|enqueue [LIBNVINFER]
//
// With LIBNVINFER, a library of TensorRT's, the plugins come out of its registry. `enqueue` needs a
// device; without one it ends with 77, which ctest takes for skipped, or with 1 where
// CORNERNET_REQUIRE_GPU is 1.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

#include "device.h"
#include "harness.h"

namespace {

using namespace harness;
using nvinfer1::IPluginCreatorInterface;
using nvinfer1::IPluginCreatorV3One;

constexpr int kSkipped = 77;

template <typename Function>
Function find(void* library, const char* name) {
  void* symbol = library ? dlsym(library, name) : nullptr;
  if (!symbol) {
    std::printf("FAILED to find %s: %s\n", name, dlerror());
    std::exit(1);
  }
  return reinterpret_cast<Function>(symbol);
}

Creators creatorsOf(void* library) {
  int32_t count = 0;
  const auto get = find<IPluginCreatorInterface* const* (*)(int32_t&)>(library, "getCreators");
  IPluginCreatorInterface* const* all = get(count);
  if (!CHECK(count == 2)) std::exit(1);
  return {static_cast<IPluginCreatorV3One*>(all[0]), static_cast<IPluginCreatorV3One*>(all[1])};
}

// The same creators, looked up in the registry of a real TensorRT after it has loaded the library.
Creators creatorsIn(const char* tensorrt, const char* path) {
  void* library = dlopen(tensorrt, RTLD_LAZY | RTLD_GLOBAL);
  auto* registry = find<decltype(&getPluginRegistry)>(library, "getPluginRegistry")();
  if (!CHECK(registry->loadLibrary(path) != nullptr)) std::exit(1);
  const auto creator = [registry](const char* name) {
    auto* found = registry->getCreator(name, "1", "cornernet");
    if (!CHECK(found != nullptr)) std::exit(1);
    CHECK(std::strcmp(found->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
    return static_cast<IPluginCreatorV3One*>(found);
  };
  CHECK(registry->getCreator("TopLeftPool", "2", "cornernet") == nullptr);
  CHECK(registry->getCreator("TopLeftPool", "1", "") == nullptr);
  return {creator("TopLeftPool"), creator("BottomRightPool")};
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::printf("usage: plugin_harness LIBRARY VERSION interfaces|enqueue [LIBNVINFER]\n");
    return 2;
  }
  const char* path = arguments[1];
  Creators creators{};
  if (count > 4) creators = creatorsIn(arguments[4], path);
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const auto setLoggerFinder = find<void (*)(nvinfer1::ILoggerFinder*)>(library, "setLoggerFinder");
  if (count <= 4) creators = creatorsOf(library);
  // With the logger of that TensorRT, or with none.
  CHECK(creators.topLeft->createPlugin("pool", nullptr, nvinfer1::TensorRTPhase::kBUILD) ==
        nullptr);
  setLoggerFinder(&logged);

  if (std::strcmp(arguments[3], "enqueue") == 0) {
    const std::string why = device::whyNot();
    if (!why.empty()) {
      const char* required = std::getenv("CORNERNET_REQUIRE_GPU");
      const bool fails = required && std::strcmp(required, "1") == 0;
      std::printf("%s: enqueue on a device, %s\n", fails ? "FAILED" : "SKIPPED", why.c_str());
      return fails ? 1 : kSkipped;
    }
    walkEnqueue(creators);
  } else {
    walkInterfaces(creators, arguments[2]);
    walkBuild(creators);
  }
  setLoggerFinder(nullptr);
  std::printf("%d checks, %d failed\n", checks, failures);
  return failures == 0 ? 0 : 1;
}

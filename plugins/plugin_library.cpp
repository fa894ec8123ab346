// What TensorRT sees of the library, and how it can register itself.
//
// TensorRT's own way is IPluginRegistry::loadLibrary, which calls the two functions exported here.
// Programs that only open a library of plugins, such as Triton, expect it to register itself; one
// that did so always could not be loaded the first way any more. So it does where the variable
// CORNERNET_REGISTER_PLUGINS is 1.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "corner_pool_creator.h"
#include "corner_pool_plugin.h"
#include "plugin_log.h"

namespace {

using cornernet::Corner;
using cornernet::CornerPoolCreator;
using cornernet::reportError;
using nvinfer1::IPluginCreatorInterface;

CornerPoolCreator topLeft(Corner::kTopLeft);
CornerPoolCreator bottomRight(Corner::kBottomRight);
IPluginCreatorInterface* const creators[] = {&topLeft, &bottomRight};

// A library of TensorRT that this process has loaded, of this major version, or null.
void* findTensorRT(int major) noexcept {
  for (const char* name : {"libnvinfer.so", "libnvinfer_lean.so"}) {
    char file[64];
    std::snprintf(file, sizeof(file), "%s.%d", name, major);
    if (void* library = dlopen(file, RTLD_LAZY | RTLD_NOLOAD)) {
      dlclose(library);  // gives back what dlopen counted; whoever loaded it keeps it
      return library;
    }
  }
  return nullptr;
}

// Whether the TensorRT of this process, if it can be found, is of the major version that this
// library was built for. With another its classes differ, and a call may end anywhere.
bool fits() noexcept {
  if (findTensorRT(NV_TENSORRT_MAJOR)) return true;
  for (const int other : {10, 11, 12}) {
    if (!findTensorRT(other)) continue;
    reportError(
        "libcornernet_plugins.so: expected TensorRT %d, for which it was built, got %d: build "
        "it with the headers of that one",
        NV_TENSORRT_MAJOR, other);
    return false;
  }
  return true;
}

nvinfer1::IPluginRegistry* findRegistry() noexcept {
  void* library = findTensorRT(NV_TENSORRT_MAJOR);
  void* symbol = library ? dlsym(library, "getPluginRegistry") : nullptr;
  return symbol ? reinterpret_cast<decltype(&getPluginRegistry)>(symbol)() : nullptr;
}

// From now on the registry holds pointers into this library, so it must stay.
bool stay() noexcept {
  Dl_info info{};
  return dladdr(creators, &info) != 0 &&
         dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE) != nullptr;
}

bool registerIfAsked() noexcept {
  const char* asked = std::getenv("CORNERNET_REGISTER_PLUGINS");
  if (!asked || std::strcmp(asked, "1") != 0) return false;
  nvinfer1::IPluginRegistry* registry = findRegistry();
  if (!registry || !stay()) {
    reportError(
        "CORNERNET_REGISTER_PLUGINS: expected TensorRT %d to be loaded before this library, found "
        "none; load it with IPluginRegistry::loadLibrary instead",
        NV_TENSORRT_MAJOR);
    return false;
  }
  for (IPluginCreatorInterface* creator : creators) {
    if (!registry->registerCreator(*creator, cornernet::kPluginNamespace)) {
      reportError(
          "CORNERNET_REGISTER_PLUGINS: TensorRT refused a plugin of this library; is it loaded "
          "twice?");
      return false;
    }
  }
  return true;
}

// When the library is opened, and after the creators above are made, for they stand before it.
[[maybe_unused]] const bool registered = registerIfAsked();

}  // namespace

extern "C" {

[[gnu::visibility("default")]] IPluginCreatorInterface* const* getCreators(int32_t& count) {
  const bool usable = fits();
  count = usable ? sizeof(creators) / sizeof(creators[0]) : 0;
  return usable ? creators : nullptr;
}

[[gnu::visibility("default")]] void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  cornernet::useLoggerFinder(fits() ? finder : nullptr);
}
}

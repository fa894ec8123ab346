// What TensorRT sees of the library, and how it can register itself.
//
// TensorRT's own way is IPluginRegistry::loadLibrary, which calls the two functions exported here.
// Programs that only open a library of plugins, such as Triton, expect it to register itself; one
// that did so always could not be loaded the first way any more. So it does where the variable
// CORNERNET_REGISTER_PLUGINS is 1.
#include <NvInferRuntime.h>
#include <dlfcn.h>

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

// The registry of the TensorRT that this process has loaded, or null. This library links none.
nvinfer1::IPluginRegistry* findRegistry() noexcept {
  for (const char* name :
       {"libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer_lean.so.11", "libnvinfer_lean.so.10"}) {
    void* library = dlopen(name, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) continue;
    void* symbol = dlsym(library, "getPluginRegistry");
    dlclose(library);  // gives back what dlopen counted; whoever loaded it keeps it
    if (symbol) return reinterpret_cast<decltype(&getPluginRegistry)>(symbol)();
  }
  return nullptr;
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
        "CORNERNET_REGISTER_PLUGINS: expected TensorRT 10 or 11 to be loaded before this library, "
        "found none; load it with IPluginRegistry::loadLibrary instead");
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
  count = sizeof(creators) / sizeof(creators[0]);
  return creators;
}

[[gnu::visibility("default")]] void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  cornernet::useLoggerFinder(finder);
}
}

// A libcuda.so.1 without a GPU: enough of a driver for NVIDIA's bindings to start, load code and
// launch kernels. Calls that it does not know succeed and do nothing.
//
// Alone, for test_device.py, it prints what it is told. With fake_gpu.cpp, for the tests of
// cornernet-bench, its device memory is the host's and launches run there, at once or, when they
// were captured, with their graph.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_VALUE = 1, INVALID_DEVICE = 101, NO_BINARY_FOR_GPU = 209 };

static int number(const char* name, int usual) {
  const char* value = getenv(name);
  return value ? atoi(value) : usual;
}

static int succeed(void) {
  return 0;
}

static int driverVersion(int* version) {
  *version = 13000;
  return 0;
}

static int deviceCount(int* count) {
  *count = 1;
  return 0;
}

static int deviceOf(int* device, int index) {
  *device = index;
  return index == 0 ? 0 : INVALID_DEVICE;
}

static int deviceAttribute(int* value, int attribute, int device) {
  (void)device;
  const int capability = number("FAKE_CAPABILITY", 90);
  *value = attribute == 75   ? capability / 10
           : attribute == 76 ? capability % 10
           : attribute == 16 ? 132  // multiprocessors
                             : 1;
  return 0;
}

static int anyHandle(void** handle) {
  *handle = (void*)0x1000;
  return 0;
}

static int libraryLoad(void** library, const char* code) {
  if (number("FAKE_REFUSES_CODE", 0)) return NO_BINARY_FOR_GPU;
  printf("load %s\n", memcmp(code, "\177ELF", 4) == 0 ? "cubin" : "ptx");
  *library = (void*)0x2000;
  return 0;
}

static int libraryKernel(void** kernel, void* library, const char* name) {
  (void)library;
  *kernel = strdup(name);
  return 0;
}

static int errorText(int error, const char** text) {
  (void)error;
  *text = "what the driver says";
  return 0;
}

struct Launch {
  const char* kernel;  // a kernel's handle is its name
  unsigned grid[3], block[3], sharedBytes;
  unsigned char parameters[4096];
};

// Of fake_gpu.cpp.
__attribute__((weak)) size_t parameterBytesOf(const char* kernel);
__attribute__((weak)) int runLaunch(const struct Launch* launch);

static struct Launch captured[64];
static int capturing, capturedCount;

static int launchKernel(const char* kernel, unsigned gridX, unsigned gridY, unsigned gridZ,
                        unsigned blockX, unsigned blockY, unsigned blockZ, unsigned sharedBytes,
                        void* stream, unsigned char** parameters, void** extra) {
  if (gridX * gridY * gridZ == 0 || blockX > 1024 || extra) return INVALID_VALUE;
  if (runLaunch) {
    struct Launch launch = {
        kernel, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, sharedBytes, {0}};
    memcpy(launch.parameters, parameters[0], parameterBytesOf(kernel));
    if (!capturing) return runLaunch(&launch);
    captured[capturedCount++] = launch;
    return 0;
  }
  printf("launch %s %u %u %u %u %u %u %u %llu ", kernel, gridX, gridY, gridZ, blockX, blockY,
         blockZ, sharedBytes, (unsigned long long)(uintptr_t)stream);
  for (int i = 0; i < number("FAKE_PARAMETER_BYTES", 0); ++i)
    printf("%02x", parameters[0][i]);
  printf("\n");
  fflush(stdout);
  return 0;
}

static int beginCapture(void) {
  capturing = 1;
  capturedCount = 0;
  return 0;
}

static int endCapture(void* stream, void** graph) {
  (void)stream;
  capturing = 0;
  return anyHandle(graph);
}

static int launchGraph(void) {
  for (int i = 0; i < capturedCount; ++i) {
    const int error = runLaunch(&captured[i]);
    if (error) return error;
  }
  return 0;
}

static int deviceName(char* name, int bytes) {
  return snprintf(name, bytes, "no GPU") < 0;
}

static int allocate(void** address, size_t bytes) {
  *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
  return *address ? 0 : INVALID_VALUE;
}

static int release(void* address) {
  free(address);
  return 0;
}

static int copy(void* to, const void* from, size_t bytes) {
  memcpy(to, from, bytes);
  return 0;
}

static int elapsed(float* milliseconds) {
  *milliseconds = 0.0125F;
  return 0;
}

static const struct {
  const char* name;
  void* function;
} known[] = {
    {"cuDriverGetVersion", driverVersion},
    {"cuDeviceGetCount", deviceCount},
    {"cuDeviceGet", deviceOf},
    {"cuDeviceGetAttribute", deviceAttribute},
    {"cuDevicePrimaryCtxRetain", anyHandle},
    {"cuCtxGetCurrent", anyHandle},
    {"cuLibraryLoadData", libraryLoad},
    {"cuLibraryGetKernel", libraryKernel},
    {"cuGetErrorName", errorText},
    {"cuGetErrorString", errorText},
    {"cuLaunchKernel", launchKernel},
    {"cuDeviceGetName", deviceName},
    {"cuStreamCreate", anyHandle},
    {"cuEventCreate", anyHandle},
    {"cuEventElapsedTime", elapsed},
    {"cuMemAlloc", allocate},
    {"cuMemFree", release},
    {"cuMemcpyHtoD", copy},
    {"cuMemcpyDtoH", copy},
    {"cuStreamBeginCapture", beginCapture},
    {"cuStreamEndCapture", endCapture},
    {"cuGraphInstantiate", anyHandle},
    {"cuGraphLaunch", launchGraph},
};

int cuGetProcAddress_v2(const char* name, void** function, int version, uint64_t flags,
                        int* status) {
  (void)version;
  (void)flags;
  if (status) *status = 0;
  *function = strncmp(name, "cuGetProcAddress", 16) == 0 ? (void*)cuGetProcAddress_v2 : succeed;
  for (size_t i = 0; i < sizeof(known) / sizeof(*known); ++i) {
    if (strcmp(known[i].name, name) == 0) *function = known[i].function;
  }
  return 0;
}

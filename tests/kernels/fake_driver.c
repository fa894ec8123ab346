// A libcuda.so.1 without a GPU, for test_device.py: enough of a driver for NVIDIA's bindings to
// start, load code and launch kernels. What it is told goes to standard output. Calls that it does
// not know succeed and do nothing.
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

// A kernel's handle is its name; its parameters are as many bytes as the test says.
static int launchKernel(const char* kernel, unsigned gridX, unsigned gridY, unsigned gridZ,
                        unsigned blockX, unsigned blockY, unsigned blockZ, unsigned sharedBytes,
                        void* stream, unsigned char** parameters, void** extra) {
  if (gridX * gridY * gridZ == 0 || blockX > 1024 || extra) return INVALID_VALUE;
  printf("launch %s %u %u %u %u %u %u %u %llu ", kernel, gridX, gridY, gridZ, blockX, blockY,
         blockZ, sharedBytes, (unsigned long long)(uintptr_t)stream);
  for (int i = 0; i < number("FAKE_PARAMETER_BYTES", 0); ++i)
    printf("%02x", parameters[0][i]);
  printf("\n");
  fflush(stdout);
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

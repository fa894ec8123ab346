// A libcuda.so.1 without a GPU: enough of a driver for NVIDIA's bindings to start, load code and
// launch kernels. Calls that it does not know succeed and do nothing.
//
// Alone, for test_device.py, it prints what it is told. With fake_gpu.cpp, for the tests of
// cornernet-bench and of the GPU pipeline, its device memory is the host's, full of NaN at first,
// and launches, copies and calls of the host run there, in the order of fake_streams.h. What a
// capture forbids fails, and so does what needs a context that is current in the thread.
#include <stdio.h>

#include "fake_streams.h"

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

struct Kernel {
  const char* name;
  int loaded;
};

static int libraryKernel(struct Kernel** kernel, void* library, const char* name) {
  (void)library;
  *kernel = calloc(1, sizeof(struct Kernel));
  (*kernel)->name = strdup(name);
  return 0;
}

static _Thread_local void* context;

static int currentContext(void** current) {
  *current = context;
  return 0;
}

static int setContext(void* current) {
  context = current;
  return 0;
}

static int kernelFunction(struct Kernel** function, struct Kernel* kernel) {
  *function = kernel;
  return context ? 0 : INVALID_CONTEXT;
}

static int loadFunction(struct Kernel* function) {
  function->loaded = 1;
  return capturing ? CAPTURE_UNSUPPORTED : 0;
}

static int errorText(int error, const char** text) {
  *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "what the driver says";
  return 0;
}

static int launchKernel(struct Kernel* kernel, unsigned gridX, unsigned gridY, unsigned gridZ,
                        unsigned blockX, unsigned blockY, unsigned blockZ, unsigned sharedBytes,
                        void* stream, unsigned char** parameters, void** extra) {
  if (!context) return INVALID_CONTEXT;
  if (capturing && !kernel->loaded) return CAPTURE_UNSUPPORTED;  // that is left to a first launch
  kernel->loaded = 1;
  if (gridX * gridY * gridZ == 0 || blockX > 1024 || extra) return INVALID_VALUE;
  if (runLaunch) {
    struct Work work = {
        .kind = LAUNCH,
        .launch = {
            kernel->name, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, sharedBytes, {0}}};
    memcpy(work.launch.parameters, parameters[0], parameterBytesOf(kernel->name));
    enter();
    return leave(enqueue(stream, &work));
  }
  printf("launch %s %u %u %u %u %u %u %u %llu ", kernel->name, gridX, gridY, gridZ, blockX, blockY,
         blockZ, sharedBytes, (unsigned long long)(uintptr_t)stream);
  for (int i = 0; i < number("FAKE_PARAMETER_BYTES", 0); ++i)
    printf("%02x", parameters[0][i]);
  printf("\n");
  fflush(stdout);
  return 0;
}

// Also called by its name: NVIDIA's bindings free what they keep of a call after its first run, and
// a graph runs it again.
int cuLaunchHostFunc(void* stream, void (*call)(void*), void* data) {
  const struct Work work = {.kind = CALL, .call = call, .data = data};
  enter();
  return leave(enqueue(stream, &work));
}

static int deviceName(char* name, int bytes) {
  return snprintf(name, bytes, "no GPU") < 0;
}

static int allocate(void** address, size_t bytes) {
  if (capturing) return CAPTURE_UNSUPPORTED;
  if (!context) return INVALID_CONTEXT;
  if (bytes > (size_t)number("FAKE_MEMORY_MIB", 1 << 20) << 20) return OUT_OF_MEMORY;
  const size_t whole = (bytes + 255) / 256 * 256;
  *address = aligned_alloc(256, whole);
  if (!*address) return OUT_OF_MEMORY;
  memset(*address, 0xff, whole);  // NaN
  enter();
  ++fakeCounts.allocated;
  return leave(0);
}

static int releaseAsync(void* address, void* stream) {
  if (capturing) return CAPTURE_UNSUPPORTED;
  const struct Work work = {.kind = RELEASE, .to = address};
  enter();
  ++fakeCounts.released;
  return leave(enqueue(stream, &work));
}

static int release(void* address) {
  if (capturing) return CAPTURE_UNSUPPORTED;
  const struct Work work = {.kind = RELEASE, .to = address};
  enter();
  ++fakeCounts.released;
  return leave(perform(&work));
}

static int copy(void* to, const void* from, size_t bytes) {
  memcpy(to, from, bytes);
  return 0;
}

static int copyAsync(void* to, const void* from, size_t bytes, void* stream) {
  const struct Work work = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
  enter();
  return leave(enqueue(stream, &work));
}

static int memoryInfo(size_t* free, size_t* total) {
  *free = *total = (size_t)number("FAKE_MEMORY_MIB", 1 << 20) << 20;
  return 0;
}

static int anyPool(void** pool) {
  return anyHandle(pool);
}

static int pointerAttribute(int* value, int attribute) {
  *value = attribute == 2 ? 2 : 0;  // memory of a device, and that is the first
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
    {"cuCtxGetCurrent", currentContext},
    {"cuCtxSetCurrent", setContext},
    {"cuLibraryLoadData", libraryLoad},
    {"cuLibraryGetKernel", libraryKernel},
    {"cuKernelGetFunction", kernelFunction},
    {"cuFuncLoad", loadFunction},
    {"cuGetErrorName", errorText},
    {"cuGetErrorString", errorText},
    {"cuLaunchKernel", launchKernel},
    {"cuDeviceGetName", deviceName},
    {"cuStreamCreate", streamCreate},
    {"cuEventCreate", eventCreate},
    {"cuEventDestroy", eventDestroy},
    {"cuEventRecord", eventRecord},
    {"cuEventQuery", eventQuery},
    {"cuEventSynchronize", eventSynchronize},
    {"cuEventElapsedTime", eventElapsed},
    {"cuMemAlloc", allocate},
    {"cuMemFree", release},
    {"cuMemcpyHtoD", copy},
    {"cuMemcpyDtoH", copy},
    {"cuStreamBeginCapture", beginCapture},
    {"cuStreamEndCapture", endCapture},
    {"cuStreamIsCapturing", isCapturing},
    {"cuStreamGetCaptureInfo", captureInfo},
    {"cuStreamSynchronize", streamSynchronize},
    {"cuStreamCreateWithPriority", streamCreate},
    {"cuStreamWaitEvent", streamWaitEvent},
    {"cuGraphInstantiate", instantiate},
    {"cuGraphInstantiateWithFlags", instantiate},
    {"cuGraphInstantiateWithParams", instantiate},
    {"cuGraphDestroy", destroyGraph},
    {"cuGraphLaunch", launchGraph},
    {"cuGraphExecDestroy", closeExecutable},
    {"cuLaunchHostFunc", cuLaunchHostFunc},
    {"cuMemAllocHost", allocate},
    {"cuMemFreeHost", release},
    {"cuMemAllocAsync", allocate},
    {"cuMemAllocFromPoolAsync", allocate},
    {"cuMemFreeAsync", releaseAsync},
    {"cuMemcpyAsync", copyAsync},
    {"cuMemGetInfo", memoryInfo},
    {"cuPointerGetAttribute", pointerAttribute},
    {"cuDeviceGetMemPool", anyPool},
    {"cuDeviceGetDefaultMemPool", anyPool},
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

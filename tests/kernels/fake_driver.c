// A libcuda.so.1 without a GPU: enough of a driver for NVIDIA's bindings to start, load code and
// launch kernels. Calls that it does not know succeed and do nothing.
//
// Alone, for test_device.py, it prints what it is told. With fake_gpu.cpp, for the tests of
// cornernet-bench and of the GPU pipeline, its device memory is the host's, full of NaN at first,
// and launches, copies and calls of the host run there, at once or, when they were captured, with
// their graph. What a capture forbids fails. Streams are all one.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  NO_BINARY_FOR_GPU = 209,
  CAPTURE_UNSUPPORTED = 900
};

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
  *text = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "what the driver says";
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

struct Work {  // of a graph: a launch, a copy or a call of the host
  struct Launch launch;
  void (*call)(void*);
  void *to, *data;
  const void* from;
  size_t bytes;
};

struct Graph {
  int count;
  struct Work work[256];
};

// What a test asks for, by name.
struct Counts {
  int allocated, released, graphs, works, captures;
};
struct Counts fakeCounts;

static struct Graph* captured;  // null unless a stream is captured

static int perform(const struct Work* work) {
  if (work->call) {
    work->call(work->data);
    return 0;
  }
  if (!work->to) return runLaunch(&work->launch);
  memcpy(work->to, work->from, work->bytes);
  return 0;
}

static int enqueue(const struct Work* work) {
  if (!captured) {
    ++fakeCounts.works;
    return perform(work);
  }
  if (captured->count == 256) return INVALID_VALUE;
  captured->work[captured->count++] = *work;
  return 0;
}

static int launchKernel(const char* kernel, unsigned gridX, unsigned gridY, unsigned gridZ,
                        unsigned blockX, unsigned blockY, unsigned blockZ, unsigned sharedBytes,
                        void* stream, unsigned char** parameters, void** extra) {
  if (gridX * gridY * gridZ == 0 || blockX > 1024 || extra) return INVALID_VALUE;
  if (runLaunch) {
    struct Work work = {
        .launch = {kernel, {gridX, gridY, gridZ}, {blockX, blockY, blockZ}, sharedBytes, {0}}};
    memcpy(work.launch.parameters, parameters[0], parameterBytesOf(kernel));
    return enqueue(&work);
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
  captured = calloc(1, sizeof(struct Graph));
  return captured ? 0 : OUT_OF_MEMORY;
}

static int endCapture(void* stream, struct Graph** graph) {
  (void)stream;
  *graph = captured;
  captured = NULL;
  ++fakeCounts.captures;
  return number("FAKE_REFUSES_CAPTURE", 0) ? CAPTURE_UNSUPPORTED : 0;
}

static int isCapturing(void* stream, int* status) {
  (void)stream;
  *status = captured != NULL;
  return 0;
}

static int captureInfo(void* stream, int* status, uint64_t* id, struct Graph** graph) {
  if (id) *id = 1;
  if (graph) *graph = captured;
  return isCapturing(stream, status);
}

static int instantiate(struct Graph** executable, struct Graph* graph) {
  *executable = graph;  // neither is ever let go of
  return 0;
}

static int launchGraph(const struct Graph* graph) {
  ++fakeCounts.graphs;
  for (int i = 0; i < graph->count; ++i) {
    const int error = perform(&graph->work[i]);
    if (error) return error;
  }
  return 0;
}

// Also called by its name: NVIDIA's bindings free what they keep of a call after its first run, and
// a graph runs it again.
int cuLaunchHostFunc(void* stream, void (*call)(void*), void* data) {
  (void)stream;
  const struct Work work = {.call = call, .data = data};
  return enqueue(&work);
}

static int synchronize(void) {
  return captured ? CAPTURE_UNSUPPORTED : 0;
}

static int deviceName(char* name, int bytes) {
  return snprintf(name, bytes, "no GPU") < 0;
}

static int allocate(void** address, size_t bytes) {
  if (captured) return CAPTURE_UNSUPPORTED;
  if (bytes > (size_t)number("FAKE_MEMORY_MIB", 1 << 20) << 20) return OUT_OF_MEMORY;
  const size_t whole = (bytes + 255) / 256 * 256;
  *address = aligned_alloc(256, whole);
  if (!*address) return OUT_OF_MEMORY;
  memset(*address, 0xff, whole);  // NaN
  ++fakeCounts.allocated;
  return 0;
}

static int release(void* address) {
  if (captured) return CAPTURE_UNSUPPORTED;
  ++fakeCounts.released;
  free(address);
  return 0;
}

static int copy(void* to, const void* from, size_t bytes) {
  memcpy(to, from, bytes);
  return 0;
}

static int copyAsync(void* to, const void* from, size_t bytes) {
  const struct Work work = {.to = to, .from = from, .bytes = bytes};
  return enqueue(&work);
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
    {"cuStreamIsCapturing", isCapturing},
    {"cuStreamGetCaptureInfo", captureInfo},
    {"cuStreamSynchronize", synchronize},
    {"cuStreamCreateWithPriority", anyHandle},
    {"cuGraphInstantiate", instantiate},
    {"cuGraphInstantiateWithFlags", instantiate},
    {"cuGraphInstantiateWithParams", instantiate},
    {"cuGraphLaunch", launchGraph},
    {"cuLaunchHostFunc", cuLaunchHostFunc},
    {"cuMemAllocHost", allocate},
    {"cuMemFreeHost", release},
    {"cuMemAllocAsync", allocate},
    {"cuMemAllocFromPoolAsync", allocate},
    {"cuMemFreeAsync", release},
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

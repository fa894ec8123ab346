// Streams, events and graphs of fake_driver.c: queues, and when what they hold is done.
//
// FAKE_ORDER says when: 0, at once; -1, as late as may be, when someone waits for it; a seed: by
// chance, as far as streams and events allow. So work that should have waited for other work, or
// memory that is used again too early, shows.
#pragma once

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  NOT_READY = 600,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901
};

enum { QUEUE = 512, GRAPH = 256 };

struct Launch {
  const char* kernel;
  unsigned grid[3], block[3], sharedBytes;
  unsigned char parameters[4096];
};

// Of fake_gpu.cpp.
__attribute__((weak)) size_t parameterBytesOf(const char* kernel);
__attribute__((weak)) int runLaunch(const struct Launch* launch);

enum Kind { LAUNCH, COPY, CALL, GRAPH_LAUNCH, WAIT, RELEASE };

struct Work {
  enum Kind kind;
  struct Launch launch;
  void (*call)(void*);
  void *to, *data;
  const void* from;
  size_t bytes;
  const struct Graph* graph;
  struct Stream* stream;  // to wait for, until it has done so much
  long position;
};

struct Graph {
  int count, closed, discarded;
  struct Work work[GRAPH];
};

struct Stream {
  struct Stream* next;
  struct Graph* captured;  // null unless it is
  long enqueued, done;
  int error, busy;
  struct Work work[QUEUE];
};

struct Event {
  unsigned flags;
  struct Stream* stream;  // null before it is recorded
  long position;
};

// What a test asks for, by name.
struct Counts {
  int allocated, released, graphs, works, captures;
};
struct Counts fakeCounts;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct Stream* streams;
static _Thread_local struct Graph* capturing;  // in this thread

static void enter(void) {
  pthread_mutex_lock(&mutex);
}

static int leave(int error) {
  pthread_mutex_unlock(&mutex);
  return error;
}

static int number(const char* name, int usual) {
  const char* value = getenv(name);
  return value ? atoi(value) : usual;
}

static struct Stream* makeStream(void) {
  struct Stream* stream = calloc(1, sizeof(struct Stream));
  if (!stream) abort();
  stream->next = streams;
  return streams = stream;
}

// Streams that nobody has made are all one.
static struct Stream* streamOf(void* handle) {
  static struct Stream* usual;
  if ((uintptr_t)handle > 2) return handle;
  if (!usual) usual = makeStream();
  return usual;
}

static int drain(struct Stream* stream, long position);

static int perform(const struct Work* work) {
  const char* failing = getenv("FAKE_FAILING_KERNEL");
  int error = 0;
  switch (work->kind) {
    case LAUNCH:
      if (failing && strcmp(failing, work->launch.kernel) == 0) return LAUNCH_FAILED;
      return runLaunch(&work->launch);
    case COPY:
      memcpy(work->to, work->from, work->bytes);
      return 0;
    case CALL:  // Python, which another thread may hold that waits for the lock
      leave(0);
      work->call(work->data);
      enter();
      return 0;
    case GRAPH_LAUNCH:
      if (work->graph->closed) return LAUNCH_FAILED;
      for (int i = 0; i < work->graph->count && !error; ++i)
        error = perform(&work->graph->work[i]);
      return error;
    case WAIT:
      return drain(work->stream, work->position);
    case RELEASE:
      if (work->to) memset(work->to, 0xff, malloc_usable_size(work->to));  // NaN again
      free(work->to);
      return 0;
  }
  return INVALID_VALUE;
}

static void performNext(struct Stream* stream) {
  stream->busy = 1;
  const int error = perform(&stream->work[stream->done % QUEUE]);
  if (error) stream->error = error;
  ++stream->done;
  stream->busy = 0;
}

// Do what a stream was given before a position.
static int drain(struct Stream* stream, long position) {
  while (stream->done < position) {
    if (!stream->busy) {
      performNext(stream);
      continue;
    }
    leave(0);
    sched_yield();
    enter();
  }
  return 0;
}

// As drain; what failed is told once.
static int await(struct Stream* stream, long position) {
  drain(stream, position);
  const int error = stream->error;
  stream->error = 0;
  return error;
}

static int canGoOn(const struct Stream* stream) {
  if (stream->busy || stream->done == stream->enqueued) return 0;
  const struct Work* work = &stream->work[stream->done % QUEUE];
  return work->kind != WAIT || work->stream->done >= work->position;
}

static void goOnByChance(int seed) {
  static int seeded;
  if (seeded != seed) srand((unsigned)(seeded = seed));
  while (rand() % 4 != 0) {
    int skipped = rand() % 4;
    for (struct Stream* stream = streams; stream; stream = stream->next) {
      if (canGoOn(stream) && skipped-- == 0) performNext(stream);
    }
  }
}

static int enqueue(void* handle, const struct Work* work) {
  struct Stream* stream = streamOf(handle);
  const int counts = work->kind <= CALL, order = number("FAKE_ORDER", 0);
  if (stream->captured) {
    if (stream->captured->count == GRAPH || work->kind > CALL) return CAPTURE_UNSUPPORTED;
    stream->captured->work[stream->captured->count++] = *work;
    return 0;
  }
  if (stream->enqueued - stream->done == QUEUE) drain(stream, stream->done + 1);
  stream->work[stream->enqueued++ % QUEUE] = *work;
  fakeCounts.works += counts;
  if (order == 0) return await(stream, stream->enqueued);
  if (order > 0) goOnByChance(order);
  return 0;
}

static int streamCreate(struct Stream** stream) {
  enter();
  *stream = makeStream();
  return leave(0);
}

static int streamSynchronize(void* handle) {
  if (capturing) return CAPTURE_UNSUPPORTED;
  enter();
  struct Stream* stream = streamOf(handle);
  return leave(await(stream, stream->enqueued));
}

static int streamWaitEvent(void* handle, const struct Event* event) {
  if (!event->stream) return 0;
  enter();
  const struct Work work = {.kind = WAIT, .stream = event->stream, .position = event->position};
  return leave(enqueue(handle, &work));
}

static int eventCreate(struct Event** event, unsigned flags) {
  *event = calloc(1, sizeof(struct Event));
  if (!*event) return OUT_OF_MEMORY;
  (*event)->flags = flags;
  return 0;
}

static int eventDestroy(struct Event* event) {
  free(event);
  return 0;
}

static int eventRecord(struct Event* event, void* handle) {
  enter();
  event->stream = streamOf(handle);
  event->position = event->stream->enqueued;
  return leave(event->stream->captured ? CAPTURE_UNSUPPORTED : 0);
}

static int eventQuery(const struct Event* event) {
  return event->stream && event->stream->done < event->position ? NOT_READY : 0;
}

static int eventSynchronize(const struct Event* event) {
  if (capturing) return CAPTURE_UNSUPPORTED;
  if (!event->stream) return 0;
  enter();
  return leave(await(event->stream, event->position));
}

static int eventElapsed(float* milliseconds, const struct Event* from, const struct Event* to) {
  const unsigned untimed = 2;
  if (!from->stream || !to->stream || (from->flags | to->flags) & untimed) return INVALID_HANDLE;
  *milliseconds = 0.0125F;
  return eventQuery(from) | eventQuery(to);
}

static int beginCapture(struct Stream* stream) {
  capturing = stream->captured = calloc(1, sizeof(struct Graph));
  return capturing ? 0 : OUT_OF_MEMORY;
}

// With FAKE_REFUSES_CAPTURE a capture is invalid, and its end destroys its graph.
static int endCapture(struct Stream* stream, struct Graph** graph) {
  const int refused = number("FAKE_REFUSES_CAPTURE", 0);
  struct Graph* captured = stream->captured;
  if (graph) *graph = refused ? NULL : captured;
  capturing = stream->captured = NULL;
  if (!captured) return ILLEGAL_STATE;
  ++fakeCounts.captures;
  captured->discarded = refused;
  return refused ? CAPTURE_INVALIDATED : 0;
}

static int destroyGraph(const struct Graph* graph) {
  if (graph->discarded) abort();  // as the real one does, mostly
  return 0;
}

static int isCapturing(void* handle, int* status) {
  const int valid = 1, invalid = 2;
  *status = !streamOf(handle)->captured ? 0 : number("FAKE_REFUSES_CAPTURE", 0) ? invalid : valid;
  return 0;
}

static int captureInfo(void* handle, int* status, uint64_t* id, struct Graph** graph) {
  if (id) *id = 1;
  if (graph) *graph = streamOf(handle)->captured;
  return isCapturing(handle, status);
}

static int instantiate(struct Graph** executable, struct Graph* graph) {
  *executable = graph;  // neither is ever let go of
  return 0;
}

static int closeExecutable(struct Graph* executable) {
  executable->closed = 1;
  return 0;
}

static int launchGraph(const struct Graph* graph, void* handle) {
  enter();
  ++fakeCounts.graphs;
  const struct Work work = {.kind = GRAPH_LAUNCH, .graph = graph};
  return leave(enqueue(handle, &work));
}

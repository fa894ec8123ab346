// Threads of a grid as fibers on one thread of the CPU, one of those that can go on chosen at
// random.
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <numeric>
#include <random>

#include "host_cuda.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace host_cuda {
namespace {

constexpr size_t kStackBytes = 256 << 10;

// Where to go on. swapcontext asks the system for the signal mask each time; without a sanitizer
// that follows it, only a fiber's first step goes that way, and jumps do the rest.
struct Place {
  ucontext_t context{};
  jmp_buf jump{};
  bool jumps = false;
};

struct Fiber {
  Thread thread;
  Place place;
  void* stack = nullptr;
  bool ended = false;
};

struct Scheduler {
  Place place;
  const void* stackBottom = nullptr;  // of the thread that called run
  size_t stackSize = 0;
  const std::function<void()>* body = nullptr;
  Fiber* running = nullptr;
  std::vector<Fiber*> ready;
  std::vector<void*> freeStacks;
  std::mt19937 random;
};

Scheduler scheduler;

void* takeStack() {
  if (scheduler.freeStacks.empty()) {
    void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) {
      std::perror("host_cuda: no memory for a stack");
      std::_Exit(kFault);
    }
    return stack;
  }
  void* stack = scheduler.freeStacks.back();
  scheduler.freeStacks.pop_back();
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack, kStackBytes);
#endif
  return stack;
}

void swap(Place& from, Place& to) {
#ifdef __SANITIZE_ADDRESS__
  swapcontext(&from.context, &to.context);
#else
  from.jumps = true;
  if (_setjmp(from.jump) != 0) return;
  if (to.jumps) _longjmp(to.jump, 1);
  setcontext(&to.context);
#endif
}

void switchToScheduler(Fiber& fiber) {
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(fiber.ended ? nullptr : &fake, scheduler.stackBottom,
                                 scheduler.stackSize);
#endif
  swap(fiber.place, scheduler.place);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, &scheduler.stackBottom, &scheduler.stackSize);
#endif
}

void switchTo(Fiber& fiber) {
  scheduler.running = &fiber;
  become(fiber.thread);
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, fiber.stack, kStackBytes);
#endif
  swap(scheduler.place, fiber.place);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void begin() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.stackBottom, &scheduler.stackSize);
#endif
  Fiber& fiber = *scheduler.running;
  (*scheduler.body)();
  leave(fiber.thread);
  fiber.ended = true;
  switchToScheduler(fiber);
}

struct Resident {
  Block block;
  std::deque<Fiber> fibers;
};

std::unique_ptr<Resident> start(dim3 grid, dim3 size, uint64_t number, size_t sharedBytes) {
  auto resident = std::make_unique<Resident>();
  Block& block = resident->block;
  block.grid = grid;
  block.size = size;
  block.index = {static_cast<unsigned>(number % grid.x),
                 static_cast<unsigned>(number / grid.x % grid.y),
                 static_cast<unsigned>(number / grid.x / grid.y)};
  makeBlock(block, sharedBytes);
  for (unsigned i = 0; i < size.x * size.y * size.z; ++i) {
    Fiber& fiber = resident->fibers.emplace_back();
    fiber.thread = {{i % size.x, i / size.x % size.y, i / size.x / size.y}, &block, i};
    fiber.stack = takeStack();
    getcontext(&fiber.place.context);
    fiber.place.context.uc_stack.ss_sp = fiber.stack;
    fiber.place.context.uc_stack.ss_size = kStackBytes;
    makecontext(&fiber.place.context, begin, 0);
    scheduler.ready.push_back(&fiber);
  }
  return resident;
}

[[noreturn]] void reportDeadlock(const std::vector<std::unique_ptr<Resident>>& residents) {
  for (const auto& resident : residents) {
    const auto report = [](const Meeting& meeting) {
      if (meeting.arrived == 0) return;
      std::fprintf(stderr, "host_cuda: %u of %u threads wait in %s at %s:%u\n", meeting.arrived,
                   meeting.expected, meeting.what, meeting.site.file_name(), meeting.site.line());
    };
    report(resident->block.barrier);
    for (const auto& warp : resident->block.warps) {
      for (const auto& [mask, lanes] : warp.lanes)
        report(lanes.meeting);
    }
  }
  fail("threads wait for others that never come", std::source_location::current());
}

}  // namespace

std::unique_lock<std::mutex> lockOf(std::mutex&) {
  return {};
}

void suspend(Meeting& meeting, std::unique_lock<std::mutex>&) {
  meeting.waiting.push_back(current);
  switchToScheduler(*scheduler.running);
}

void release(Meeting& meeting) {
  meeting.arrived = 0;
  ++meeting.generation;
  for (Thread* thread : meeting.waiting) {  // the thread is the first member of its fiber
    scheduler.ready.push_back(reinterpret_cast<Fiber*>(thread));
  }
  meeting.waiting.clear();
}

void run(dim3 grid, dim3 size, size_t sharedBytes, const std::function<void()>& body) {
  scheduler.body = &body;
  scheduler.random.seed(options().seed);
  std::vector<uint64_t> waiting(uint64_t{grid.x} * grid.y * grid.z);
  std::iota(waiting.begin(), waiting.end(), 0);
  std::shuffle(waiting.begin(), waiting.end(), scheduler.random);
  std::vector<std::unique_ptr<Resident>> residents;
  while (!waiting.empty() || !residents.empty()) {
    while (!waiting.empty() && residents.size() < options().blocksInFlight) {
      residents.push_back(start(grid, size, waiting.back(), sharedBytes));
      waiting.pop_back();
    }
    if (scheduler.ready.empty()) reportDeadlock(residents);
    std::swap(scheduler.ready[scheduler.random() % scheduler.ready.size()], scheduler.ready.back());
    Fiber& fiber = *scheduler.ready.back();
    scheduler.ready.pop_back();
    switchTo(fiber);
    if (fiber.ended) {
      scheduler.freeStacks.push_back(fiber.stack);
      std::erase_if(residents, [](const auto& one) { return one->block.alive == 0; });
    }
  }
}

}  // namespace host_cuda

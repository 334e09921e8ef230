#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(EMULATION_ADDRESS)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMULATION_THREAD)
#include <sanitizer/tsan_interface.h>
#endif

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

// Keeps what a function must leave as it found it (System V ABI), and takes up what another fiber kept.
extern "C" void emulation_switch(void** keep, void* load);
asm(R"(
.text
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulation_switch, . - emulation_switch
)");

namespace emulation {
namespace {

constexpr size_t stack_bytes = size_t{128} << 10, page = 4096;
constexpr int kept_registers = 6;

Fiber* running = nullptr;
void* host_place = nullptr;

char* make_stack() {
  void* memory =
      mmap(nullptr, page + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, page, PROT_NONE);  // an overflow stops here
  return static_cast<char*>(memory) + page;
}

#if defined(EMULATION_ADDRESS)
void* host_fake_stack = nullptr;
const void* host_stack = nullptr;
size_t host_stack_bytes = 0;
#endif
#if defined(EMULATION_THREAD)
void* host_shadow = nullptr;
#endif

}  // namespace

void begin_fiber() {
#if defined(EMULATION_ADDRESS)
  __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_bytes);
#endif
  running->function_();
  __builtin_trap();
}

Fiber::Fiber() : stack_(make_stack()) {
#if defined(EMULATION_THREAD)
  shadow_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
#if defined(EMULATION_THREAD)
  __tsan_destroy_fiber(shadow_);
#endif
  munmap(stack_ - page, page + stack_bytes);
}

void Fiber::start(void (*function)()) {
  static unsigned started = 0;
  function_ = function;
#if defined(EMULATION_ADDRESS)
  __asan_unpoison_memory_region(stack_, stack_bytes);
#endif
  // Tops at different offsets, so that the stacks do not all fall into one set of the cache.
  void** top = reinterpret_cast<void**>(stack_ + stack_bytes - 16 - started++ % 61 * 64);
  *top = reinterpret_cast<void*>(&begin_fiber);
  for (int i = 1; i <= kept_registers; ++i) top[-i] = nullptr;
  place_ = top - kept_registers;
}

void Fiber::resume() {
  running = this;
#if defined(EMULATION_THREAD)
  host_shadow = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(shadow_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(EMULATION_ADDRESS)
  __sanitizer_start_switch_fiber(&host_fake_stack, stack_, stack_bytes);
#endif
  emulation_switch(&host_place, place_);
#if defined(EMULATION_ADDRESS)
  __sanitizer_finish_switch_fiber(host_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::leave([[maybe_unused]] bool for_good) {
#if defined(EMULATION_ADDRESS)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, host_stack, host_stack_bytes);
#endif
#if defined(EMULATION_THREAD)
  __tsan_switch_to_fiber(host_shadow, __tsan_switch_to_fiber_no_sync);
#endif
  emulation_switch(&place_, host_place);
#if defined(EMULATION_ADDRESS)
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

#if defined(EMULATION_THREAD)
void acquire(void* object) { __tsan_acquire(object); }
void release(void* object) { __tsan_release(object); }
#else
void acquire(void*) {}
void release(void*) {}
#endif

}  // namespace emulation

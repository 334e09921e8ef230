// A function that can be left in the middle and gone on with later: a stack and a place on it. Sanitizers are told of
// every change of stack. Threads of a kernel are fibers of one host thread. Making one takes long under sanitizers, so
// they are used again.
#pragma once

#include <cstddef>

namespace emulation {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void start(void (*function)());  // what the next resume() calls; it must not return: it ends in leave(true)
  void resume();                   // from the host thread: runs the fiber until it leaves
  void leave(bool for_good);       // from the fiber: back to resume()

 private:
  friend void begin_fiber();
  char* stack_;
  void* place_ = nullptr;  // stack pointer while it does not run
  void (*function_)() = nullptr;
  [[maybe_unused]] void* fake_stack_ = nullptr;  // AddressSanitizer's
  [[maybe_unused]] void* shadow_ = nullptr;      // ThreadSanitizer's
};

// Tells ThreadSanitizer that what came before release(x) happens before what follows acquire(x).
void acquire(void* object);
void release(void* object);

}  // namespace emulation

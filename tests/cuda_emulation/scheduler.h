// Runs a kernel: every CUDA thread is a fiber, and one host thread runs them in turns, in an order of the test's
// choice.
//
// A thread never touches what the scheduler keeps: it leaves a request, which the scheduler carries out on its own
// stack. So ThreadSanitizer sees no order between threads but what the kernel's own barriers and flags make.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <stdexcept>
#include <string>
#include <vector>

#include "fiber.h"
#include "vector_types.h"

namespace emulation {

using Location = std::source_location;

enum class Order { forward, reverse, random };
struct Settings {
  Order order = Order::forward;
  uint64_t seed = 1;      // of the random order
  unsigned resident = 0;  // blocks that fit on the device at once; 0: as many as a launch needs at least
};
extern Settings settings;

struct Shape {
  dim3 grid, block;
  size_t shared_bytes = 0;
  unsigned cluster = 1;  // blocks in a cluster
  bool cooperative = false;
};

// What a kernel did wrong: a deadlock, divergent barriers, a wrong mask ...
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void run(const Shape&, const std::function<void()>& kernel);  // throws Fault

// ------------------------------------------------------------------------------------------- for the kernel language

struct Block;
struct WarpCall;
struct AsyncCopy {
  void (*carry_out)(void* to, const void* from);
  void* to;
  const void* from;
};

// Threads that wait for one another.
struct Barrier {
  std::vector<struct Thread*> waiting;
  unsigned phase = 0;
  char order[2];                          // for ThreadSanitizer, by parity of the phase
  bool any = false, all = true;           // of the votes of those who wait
  unsigned count = 0;
  struct Votes {
    bool any, all;
    unsigned count;
  } result[2];
};

struct Thread {
  enum class State { ready, at_barrier, in_warp_call, spinning, done };

  uint3 index, block_index;
  unsigned number, lane;  // in its block, in its warp
  Block* block;
  State state = State::ready;
  Location where;  // of the call it waits in
  WarpCall* call = nullptr;
  unsigned warp_calls = 0;  // how many it has been in
  std::vector<AsyncCopy> copies;  // under way
  char warp_order[2];
  void (*request)(void*) = nullptr;  // what the scheduler is to do once the thread has left
  void* request_data = nullptr;
  std::unique_ptr<Fiber> fiber;
};

struct Block {
  std::vector<Thread> threads;
  unsigned number, cluster, cluster_rank;
  unsigned live;  // threads that have not returned
  char* shared;
  Barrier barrier;
};

struct Grid {
  Shape shape;
  const std::function<void()>* kernel;
  std::vector<std::unique_ptr<Block>> blocks;  // those that have started
  std::vector<Barrier> cluster_barriers;
  std::string fault;

  unsigned block_threads() const { return shape.block.x * shape.block.y * shape.block.z; }
  unsigned block_count() const { return shape.grid.x * shape.grid.y * shape.grid.z; }
};

extern Thread* current;  // the thread that runs
extern Grid* grid;       // the launch it belongs to

// Leaves the thread in a state and has the request carried out by the scheduler; returns when the thread runs again.
template <class Request> void wait(Thread::State state, Request request) {
  current->state = state;
  current->request = [](void* data) { (*static_cast<Request*>(data))(); };
  current->request_data = &request;
  current->fiber->leave(false);
}
void spin();  // lets all others run first: inside every loop that waits for a flag

// For requests:
void wake(Thread&);
void progress();  // spinning threads may have something new to see
void fault(const std::string& what, const Location&);

}  // namespace emulation

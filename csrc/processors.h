// The processors that a process may use, and which of them a call's threads are on.
#pragma once

#include <array>
#include <atomic>

namespace fastrnn {

inline constexpr int max_threads = 4095;

// FASTRNN_NUM_THREADS; else as many processors as this process may use: its affinity, and a container's quota (version
// 1 or 2 of control groups).
int initial_threads();

// Linux may wake a worker on the processor of the thread that wakes it and leave both there for tens of ms while
// another one idles.
class Places {
 public:
  // The calling thread, the call's `rank`-th, says where it runs, and first leaves a processor that one before it is
  // on.
  void take(int rank);

 private:
  int at(int rank) const { return at_[static_cast<size_t>(rank)].load(std::memory_order_relaxed); }
  int leave(int rank) const;

  std::array<std::atomic<int>, max_threads> at_{};
};

}  // namespace fastrnn

// A pool of worker threads, and the barrier at which they meet inside a call.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastrnn {

struct OpenMP;

// All `size` threads leave wait() only after all have entered it, and see what the others wrote before.
class Barrier {
 public:
  explicit Barrier(int size = 1) : size_(size) {}
  Barrier(const Barrier& other) : size_(other.size_) {}

  void wait();

 private:
  int size_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
};

// The right to use the pool, or OpenMP's threads in its place. One caller at a time has it; another that comes
// meanwhile works on its own thread alone.
//
// Threads meet at the end of a call, many also at each step. Where other programs want the same cores, one that has to
// wait for its turn holds up all others, and one thread alone is faster: that is what a lease has for a while after
// calls spent two fifths of their time so, unless it insists.
class Lease {
 public:
  explicit Lease(int wanted, bool insists = false, bool on_openmp = false);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int threads() const { return threads_; }

  // Calls body(context, rank) for rank 0 (on this thread) to count - 1 at once; count <= threads(). body must not
  // throw. Denormals count as zero inside; the caller's floating-point mode is restored. Throws std::runtime_error,
  // before anything has run, where OpenMP has fewer threads than it promised and no others can be started.
  void run(int count, void (*body)(void* context, int rank), void* context);

 private:
  int threads_;
  bool holds_pool_ = false;
  const OpenMP* openmp_ = nullptr;
};

template <class Body> void run(Lease& lease, int count, const Body& body) {
  lease.run(
      count, [](void* context, int rank) { (*static_cast<const Body*>(context))(rank); }, const_cast<Body*>(&body));
}

}  // namespace fastrnn

// A pool of worker threads, and the barrier at which they meet inside a call.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastrnn {

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

// The right to use the pool. One caller at a time has it; another that comes meanwhile works on its own thread alone.
//
// `tight` work meets at barriers every few microseconds. Where other programs want the same cores, a thread that has to
// wait for its turn holds up all others at each of them, and one thread alone is faster: a tight lease has one thread
// for a while after a tight call was interrupted.
class Lease {
 public:
  Lease(int wanted, bool tight);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int threads() const { return threads_; }

  // Calls body(context, rank) for rank 0 (on this thread) to count - 1 at once; count <= threads(). body must not
  // throw. Denormals count as zero inside; the caller's floating-point mode is restored.
  void run(int count, void (*body)(void* context, int rank), void* context);

 private:
  int threads_;
  bool tight_;
  bool holds_pool_ = false;
};

template <class Body> void run(Lease& lease, int count, const Body& body) {
  lease.run(
      count, [](void* context, int rank) { (*static_cast<const Body*>(context))(rank); }, const_cast<Body*>(&body));
}

}  // namespace fastrnn

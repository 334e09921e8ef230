// The rate of multiply-adds that this machine reaches: what the benchmarks hold the kernels against.
#include <algorithm>
#include <chrono>

#include "fastrnn.h"
#include "kernels.h"
#include "threads.h"

namespace fastrnn {

double fma_rate(DType dtype, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  int64_t (*const multiply_adds)(int64_t) = multiply_add_loop(dtype, isa());
  Lease lease(threads, true);
  const int count = std::min(threads, lease.threads());
  // All threads do their work in the same stretches of time: what the cores do together.
  constexpr int64_t rounds = 20000;
  Barrier barrier(count);
  double done = 0, took = 0;
  bool more = true;
  const auto start = Clock::now();
  run(lease, count, [&](int rank) {
    while (true) {
      barrier.wait();
      if (!more) return;
      const int64_t own = multiply_adds(rounds);
      barrier.wait();
      if (rank != 0) continue;
      done += static_cast<double>(own * count);
      took = std::chrono::duration<double>(Clock::now() - start).count();
      more = took < seconds;
    }
  });
  return 2 * done / took;
}

}  // namespace fastrnn

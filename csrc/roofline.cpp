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
  // All threads do their work in the same stretch of time, and the best stretch counts: what the cores do together.
  constexpr int64_t rounds = 20000;
  Barrier barrier(count);
  double best = 0;
  bool more = true;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  run(lease, count, [&](int rank) {
    while (true) {
      barrier.wait();
      if (!more) return;
      const auto before = Clock::now();
      const auto done = static_cast<double>(multiply_adds(rounds) * count);
      barrier.wait();
      if (rank != 0) continue;
      const auto now = Clock::now();
      best = std::max(best, done / std::chrono::duration<double>(now - before).count());
      more = now < end;
    }
  });
  return 2 * best;
}

}  // namespace fastrnn

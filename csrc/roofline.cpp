// The rate of multiply-adds that this machine reaches: what the benchmarks hold the kernels against.
#include <algorithm>
#include <chrono>
#include <vector>

#include "fastrnn.h"
#include "kernels.h"
#include "threads.h"

namespace fastrnn {

double fma_rate(DType dtype, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  int64_t (*const multiply_adds)(int64_t) = multiply_add_loop(dtype, isa());
  Lease lease(threads);
  const int count = std::min(threads, lease.threads());
  std::vector<double> rates(static_cast<size_t>(count) * 8);  // a cache line each
  run(lease, count, [&](int rank) {
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    double best = 0;
    for (auto before = Clock::now(); before < end;) {
      const auto done = static_cast<double>(multiply_adds(20000));
      const auto now = Clock::now();
      best = std::max(best, done / std::chrono::duration<double>(now - before).count());
      before = now;
    }
    rates[static_cast<size_t>(rank) * 8] = best;
  });
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return 2 * sum;
}

}  // namespace fastrnn

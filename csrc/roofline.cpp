// The rates that this machine reaches in what the kernels mostly do: what the benchmarks hold them against.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "fastrnn.h"
#include "kernels.h"
#include "threads.h"

namespace fastrnn {
namespace {

// What calls of work(rank, threads, barrier of these), which gives how much it has done, come to a second. All threads
// do their work in the same stretches of time: what the cores do together.
template <class Work> double rate(int threads, double seconds, Work&& work) {
  using Clock = std::chrono::steady_clock;
  Lease lease(threads, true);
  const int count = std::min(threads, lease.threads());
  Barrier barrier(count);
  std::vector<double> done(static_cast<size_t>(count) * 8);  // a cache line each
  double took = 0;
  bool more = true;
  const auto start = Clock::now();
  run(lease, count, [&](int rank) {
    while (true) {
      barrier.wait();
      if (!more) return;
      done[static_cast<size_t>(rank) * 8] += static_cast<double>(work(rank, count, barrier));
      barrier.wait();
      if (rank != 0) continue;
      took = std::chrono::duration<double>(Clock::now() - start).count();
      more = took < seconds;
    }
  });
  double sum = 0;
  for (const double part : done) sum += part;
  return sum / took;
}

}  // namespace

double fma_rate(DType dtype, int threads, double seconds) {
  const Roofline& loops = roofline(dtype, isa());
  return 2 * rate(threads, seconds, [&](auto&&...) { return loops.multiply_adds(20000); });
}

double weight_rate(DType dtype, int64_t rows, int64_t depth, int threads, double seconds) {
  const Roofline& loops = roofline(dtype, isa());
  const size_t bytes = static_cast<size_t>(loops.matrix_size(rows, depth)) * (dtype == DType::float64 ? 8 : 4);
  const Memory matrix = allocate(bytes);
  std::memset(matrix.get(), 0, bytes);
  const int64_t passes = std::max<int64_t>(2, (int64_t{4} << 20) / static_cast<int64_t>(bytes));
  return rate(threads, seconds, [&](int rank, int count, Barrier&) {
    return loops.multiply_vectors(matrix.get(), rows, depth, rank, count, passes);
  });
}

double meeting_rate(int threads, double seconds) {
  return rate(threads, seconds, [](int rank, int, Barrier& barrier) {
    constexpr int meetings = 1000;
    for (int i = 0; i < meetings; ++i) barrier.wait();
    return rank == 0 ? meetings : 0;
  });
}

}  // namespace fastrnn

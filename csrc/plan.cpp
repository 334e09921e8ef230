#include "plan.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>

namespace fastrnn {
namespace {

// What the model knows of the machine. Rates are those of one core; only their proportions matter.
struct Machine {
  double l2_bytes = 1 << 20, l3_bytes = 32 << 20;
  double multiply_adds = 2 * 3.5;  // vectors a ns
  double l1_rate = 200, l2_rate = 100, l3_rate = 25, memory_rate = 10;  // bytes a ns
  double pointwise = 3.0;          // ns for a vector of one gate
  double barrier = 150;            // ns
  double dispatch = 1500;          // ns, a call's threads to wake and to gather
};

const Machine& machine() {
  static const Machine known = [] {
    Machine m;
#if defined(_SC_LEVEL2_CACHE_SIZE) && defined(_SC_LEVEL3_CACHE_SIZE)
    if (const long size = sysconf(_SC_LEVEL2_CACHE_SIZE); size > 0) m.l2_bytes = static_cast<double>(size);
    if (const long size = sysconf(_SC_LEVEL3_CACHE_SIZE); size > 0) m.l3_bytes = static_cast<double>(size);
#endif
    return m;
  }();
  return known;
}

std::atomic<Partition> forced{Partition::automatic};

double ceil_div(double a, double b) { return std::ceil(a / b); }

// Of the rate of multiply-adds, what a tile of this many rows reaches.
double tile_share(double rows) { return rows >= 6 ? 0.95 : rows >= 3 ? 0.85 : rows >= 2 ? 0.6 : 0.4; }

// ns of one layer, all its directions.
double cost(const Problem& p, const Plan& way) {
  const Machine& m = machine();
  const Dims& d = p.dims;
  const double rows = ceil_div(static_cast<double>(d.rows), way.teams);
  const double vectors = ceil_div(static_cast<double>(d.hidden), p.lanes);
  const double own_vectors = ceil_div(vectors, way.team_size);
  const double gates = p.gates;

  const double weights = own_vectors * p.lanes * gates * static_cast<double>(d.output) * p.itemsize;
  const double rate = weights <= 0.75 * m.l2_bytes  ? m.l2_rate
                      : weights <= 0.5 * m.l3_bytes ? m.l3_rate
                                                    : m.memory_rate;
  const double products = rows * own_vectors * gates * static_cast<double>(d.output);
  double step = std::max(products / (m.multiply_adds * tile_share(rows)), weights / rate);
  step += rows * own_vectors * gates * m.pointwise;
  if (way.team_size > 1) step += m.barrier * (d.projected ? 2 : 1);
  const double input = rows * own_vectors * gates * static_cast<double>(d.input) / (m.multiply_adds * 0.9);
  double total = static_cast<double>(d.steps) * (step + input);
  if (p.training) total *= 3;
  total *= p.directions / way.directions;
  return total + (way.threads() > 1 ? m.dispatch : 0);
}

ChunkRows chunks(const Problem& p, const Plan& way) {
  const Dims& d = p.dims;
  const int64_t share = d.hidden * p.gates * p.itemsize / way.team_size + 1;
  const int64_t team_rows = (d.rows + way.teams - 1) / way.teams;
  const auto of = [&](int64_t wanted, int64_t rows) {
    return std::max<int64_t>(
        1, std::min(std::max(wanted, rows), std::max<int64_t>(1, d.steps) * std::max<int64_t>(1, rows)));
  };
  // Forward, a core's part of the input product stays in its L2; backward, a chunk's gate gradients stay in the cache
  // while there are enough rows for the sums over them to outweigh reading and writing the sums.
  return {of(std::clamp<int64_t>((512 << 10) / share, 8, 4096), team_rows), of(256, d.rows)};
}

}  // namespace

void set_partition(Partition partition) { forced.store(partition); }

Plan plan(const Problem& p, int max_threads) {
  const Partition partition = forced.load(std::memory_order_relaxed);
  Plan best;
  double best_cost = partition == Partition::automatic ? cost(p, best) : 0;
  const bool small = partition == Partition::automatic && best_cost < machine().dispatch;
  if (small) max_threads = 1;  // not worth another thread, nor the search
  for (int directions = 1; directions <= std::min(p.directions, max_threads); ++directions) {
    const int threads = max_threads / directions;
    for (int teams = 1; teams <= threads && teams <= std::max<int64_t>(1, p.dims.rows); ++teams) {
      if (partition == Partition::units && teams > 1) break;
      for (int team_size = 1; teams * team_size <= threads; ++team_size) {
        if (partition == Partition::rows && team_size > 1) break;
        Plan way;
        way.directions = directions, way.teams = teams, way.team_size = team_size;
        // A forced partition is for tests: it takes all threads it can.
        const double ns =
            partition == Partition::automatic ? cost(p, way) : -way.threads() - (directions == 1 ? 0.5 : 0);
        if (ns < best_cost) best = way, best_cost = ns;
      }
    }
  }
  best.tight = best.team_size > 1 && partition == Partition::automatic;
  best.chunk = chunks(p, best);
  return best;
}

}  // namespace fastrnn

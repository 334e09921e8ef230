#include "plan.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <vector>

namespace fastrnn {
namespace {

// What the model knows of the machine: sizes are asked for, rates are those measured on one core of an AMD Zen 5. Only
// their proportions matter to the choice.
struct Machine {
  double l2_bytes = 1 << 20, l3_bytes = 32 << 20;
  double multiply_adds = 7.9;                                // vectors a ns
  double l2_rate = 160, l3_rate = 90, memory_rate = 15;  // bytes a ns
  double pointwise = 1.3;                                    // ns for a vector of one gate
  double barrier = 120;                                      // ns
  double exchange_rate = 15;                                 // bytes of h a ns, from another core's cache
  double dispatch = 1500;                                    // ns, a call's threads to wake and to gather
};

// Of the first processor, as Linux tells it, or 0. (sysconf() adds up the third level of all of an AMD's parts.)
double cache_bytes(int level) {
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    int found = 0;
    double kilobytes = 0;
    const auto read = [&](const char* name, const char* format, void* value) {
      std::FILE* file = std::fopen((folder + name).c_str(), "r");
      const bool fine = file && std::fscanf(file, format, value) == 1;
      if (file) std::fclose(file);
      return fine;
    };
    if (!read("/level", "%d", &found)) return 0;
    if (found == level && read("/size", "%lfK", &kilobytes)) return 1024 * kilobytes;
  }
  return 0;
}

// Asked while the program loads: a child that is forked later never finds it half done.
const Machine machine = [] {
  Machine m;
  if (const double size = cache_bytes(2); size > 0) m.l2_bytes = size;
  if (const double size = cache_bytes(3); size > 0) m.l3_bytes = size;
  return m;
}();

std::atomic<Partition> forced{Partition::automatic};

double ceil_div(double a, double b) { return std::ceil(a / b); }

// Of the rate of multiply-adds, what a tile of this many rows reaches.
double tile_share(double rows) { return rows >= 6 ? 0.94 : rows >= 3 ? 0.85 : rows >= 2 ? 0.6 : 0.4; }

// ns of one layer, all its directions, on the thread that has most to do.
struct Cost {
  double step_products, pointwise, meetings, exchange;  // of all steps
  double time_products;                                 // of all steps together: of x, and backward of the weights
  double dispatch;

  double total() const { return step_products + pointwise + meetings + exchange + time_products + dispatch; }
};

Cost cost(const Problem& p, const Plan& way) {
  const Machine& m = machine;
  const Dims& d = p.dims;
  // Of the largest team; where rows end one after another, it has half a row more than its part on average.
  const double batch = static_cast<double>(d.rows), teams = way.teams;
  const double rows = p.mean_rows < batch ? p.mean_rows / teams + 0.5 * (1 - 1 / teams) : ceil_div(batch, teams);
  const double own_vectors = ceil_div(ceil_div(static_cast<double>(d.hidden), p.lanes), way.team_size);
  const double gate_vectors = own_vectors * p.gates;
  const double output = static_cast<double>(d.output), input = static_cast<double>(d.input);

  // A step reads its weights from the cache they fit into, or computes, whichever takes longer.
  const double weights = gate_vectors * p.lanes * output * p.itemsize;
  const double rate = weights <= m.l2_bytes                         ? m.l2_rate
                      : weights * way.threads() <= 0.5 * m.l3_bytes ? m.l3_rate
                                                                    : m.memory_rate;
  const double product = rows * gate_vectors * output / (m.multiply_adds * tile_share(rows));
  const double repeats = static_cast<double>(d.steps) * ceil_div(p.directions, way.directions);

  Cost c{};
  c.step_products = repeats * std::max(product, weights / rate);
  c.pointwise = repeats * rows * gate_vectors * m.pointwise;
  if (way.team_size > 1) {
    const double others = 1.0 - 1.0 / way.team_size;
    c.meetings = repeats * p.step_products * m.barrier;
    c.exchange =
        repeats * p.step_products * others * rows * output * (p.backward ? p.gates : 1) * p.itemsize / m.exchange_rate;
  }
  // Backward: dx, and the gradients of both weights.
  const double depth = p.backward ? 2 * input + output : input;
  c.time_products = repeats * rows * gate_vectors * depth / (m.multiply_adds * (p.backward ? 0.8 : 0.9));
  c.dispatch = way.threads() > 1 ? m.dispatch : 0;
  return c;
}

ChunkRows chunks(const Problem& p, const Plan& way) {
  const Dims& d = p.dims;
  const int64_t share = d.hidden * p.gates * p.itemsize / way.team_size + 1;
  const int64_t team_rows = (d.rows + way.teams - 1) / way.teams;
  const auto of = [&](int64_t wanted, int64_t rows) {
    return std::max<int64_t>(
        1, std::min(std::max(wanted, rows), std::max<int64_t>(1, d.steps) * std::max<int64_t>(1, rows)));
  };
  // Forward, a core's part of the input product is a MiB, about an L2: more is no faster, and half of it reads large
  // weights more often. Backward, a chunk's gate gradients stay in the cache while there are enough rows for the sums
  // over them to outweigh reading and writing the sums.
  return {of(std::clamp<int64_t>((1 << 20) / share, 8, 4096), team_rows), of(256, d.rows)};
}

// From one use of a panel to its next, all others of both matrices pass through the L3, and from one step to the next a
// thread's share of W_hh through its L2.
Level weights_level(const Problem& p, const Plan& way) {
  const Dims& d = p.dims;
  const double column_bytes = static_cast<double>(p.gates * d.hidden * p.itemsize);
  if (p.directions * column_bytes * static_cast<double>(d.input + d.output) > 0.5 * machine.l3_bytes)
    return Level::memory;
  return column_bytes * static_cast<double>(d.output) / way.team_size > machine.l2_bytes ? Level::l3 : Level::l2;
}
const char* name(Level level) {
  constexpr const char* names[] = {"the L2", "the L3", "memory"};
  return names[static_cast<int>(level)];
}

// From one number to try to the next, and at last `most`: steps of a quarter, so that a machine of hundreds of threads
// takes no longer to plan than to compute.
int next(int number, int most) { return number < most ? std::min(number + std::max(1, number / 4), most) : most + 1; }

// Ways to share the work between at most so many threads, within what a test forces.
template <class Visit> void for_all_ways(const Problem& p, int max_threads, Partition partition, Visit&& visit) {
  for (int directions = 1; directions <= std::min(p.directions, max_threads); ++directions) {
    const int threads = max_threads / directions;
    const int most_teams = static_cast<int>(std::clamp<int64_t>(p.dims.rows, 1, threads));
    for (int teams = 1; teams <= most_teams; teams = next(teams, most_teams)) {
      if (partition == Partition::units && teams > 1) break;
      const int most = threads / teams;
      for (int team_size = 1; team_size <= most; team_size = next(team_size, most)) {
        if (partition == Partition::rows && team_size > 1) break;
        Plan way;
        way.directions = directions, way.teams = teams, way.team_size = team_size;
        visit(way);
      }
    }
  }
}

}  // namespace

void set_partition(Partition partition) { forced.store(partition); }

Plan plan(const Problem& p, int max_threads) {
  const Partition partition = forced.load(std::memory_order_relaxed);
  Plan best;
  double best_cost = 0;
  if (partition == Partition::automatic) {
    best_cost = cost(p, best).total();
    if (best_cost < machine.dispatch) max_threads = 1;  // not worth another thread, nor the search
  }
  for_all_ways(p, max_threads, partition, [&](const Plan& way) {
    // A forced partition is for tests: it takes all threads it can.
    const double ns =
        partition == Partition::automatic ? cost(p, way).total() : -way.threads() - (way.directions == 1 ? 0.5 : 0);
    if (ns < best_cost) best = way, best_cost = ns;
  });
  best.insists = partition != Partition::automatic;
  best.weights = weights_level(p, best);
  best.chunk = chunks(p, best);
  return best;
}

std::string explain(const Problem& p, int max_threads) {
  struct Row {
    Plan way;
    Cost cost;
  };
  std::vector<Row> rows;
  for_all_ways(p, max_threads, Partition::automatic, [&](const Plan& way) { rows.push_back({way, cost(p, way)}); });
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.cost.total() < b.cost.total(); });
  const Machine& m = machine;
  char line[200];
  std::snprintf(line, sizeof line, "L2 %.0f KiB, L3 %.0f KiB; weights come from %s; times in µs of one layer\n",
                m.l2_bytes / 1024, m.l3_bytes / 1024, name(weights_level(p, rows.front().way)));
  std::string text = line;
  text +=
      "directions  teams  team size    total  step products  pointwise  meetings  exchange  time products  "
      "dispatch  chunk\n";
  for (const Row& row : rows) {
    const ChunkRows chunk = chunks(p, row.way);
    std::snprintf(line, sizeof line, "%10d  %5d  %9d  %7.1f  %13.1f  %9.1f  %8.1f  %8.1f  %13.1f  %8.1f  %5lld\n",
                  row.way.directions, row.way.teams, row.way.team_size, row.cost.total() / 1e3,
                  row.cost.step_products / 1e3, row.cost.pointwise / 1e3, row.cost.meetings / 1e3,
                  row.cost.exchange / 1e3, row.cost.time_products / 1e3, row.cost.dispatch / 1e3,
                  static_cast<long long>(p.backward ? chunk.backward : chunk.forward));
    text += line;
  }
  return text;
}

}  // namespace fastrnn

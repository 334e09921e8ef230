#include "plan.h"

#include <algorithm>
#include <stdexcept>

namespace fastrnn::cuda {
namespace {

// Rough figures of a Hopper GPU, none of them measured by this project; bench/gpu/exchange.cu measures those of the
// exchange.
constexpr double launch_us = 2.5;          // from one small kernel to the next on a stream
constexpr double device_flops_a_us = 3e7;  // of a small product
constexpr double shared_bytes_a_us = 2e5;  // that an SM reads of its shared memory
constexpr double fma_a_us = 2e5;           // that an SM does in float; half as many in double
constexpr double fetch_bytes_a_us = 1e5;   // that an SM gets from L2,
constexpr double l2_bytes_a_us = 5e6;      // and all of them together
constexpr double stage_us = 0.3;           // barriers and the latency of a pointwise stage
constexpr double elements_a_us = 2500;     // units and rows of a pointwise stage that an SM does
constexpr double cluster_us = 0.5;         // from a block's last write to the others' first read, in a cluster,
constexpr double grid_us = 1.2;            // and by flags

int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

double step_by_step(const StepProblem& p) {
  const double weights = static_cast<double>(p.gates * p.dims.hidden * p.dims.output);
  return 2 * launch_us * p.step_products + 2 * weights * static_cast<double>(p.dims.rows) / device_flops_a_us;
}

double resident(const StepProblem& p, const Partition& how, const Device& device) {
  const int64_t blocks = parts(p.dims.rows, how.rows) * how.blocks * p.directions;
  const double weights = static_cast<double>(p.gates * how.units * p.dims.hidden);
  const auto itemsize = static_cast<double>(p.itemsize);
  const double product = p.itemsize == 2 || how.tf32
                             ? weights * itemsize * static_cast<double>(parts(how.rows, 8)) / shared_bytes_a_us
                             : weights * how.rows * itemsize / 4 / fma_a_us;
  const double vectors = static_cast<double>(how.rows * p.dims.hidden * (p.backward ? p.gates : 1)) * itemsize;
  double exchange = 0;
  if (how.way == Way::cluster) exchange = cluster_us * p.step_products + vectors / fetch_bytes_a_us;
  if (how.way == Way::grid) {
    exchange = grid_us * p.step_products +
               std::max(vectors / fetch_bytes_a_us, vectors * static_cast<double>(blocks) / l2_bytes_a_us);
  }
  const double turns = static_cast<double>(parts(blocks, device.processors));
  return turns * (stage_us * p.step_products + how.rows * how.units / elements_a_us + product + exchange);
}

class Candidates {
 public:
  Candidates(const StepProblem& problem, const Device& device, const Options& options)
      : p_(problem), device_(device), options_(options) {}

  std::vector<Cost> all() {
    found_.push_back({{Way::step_by_step}, step_by_step(p_)});
    if (p_.dims.rows == 0 || p_.dims.hidden == 0) return found_;
    for (const int rows : {8, 16, 32}) {
      add(Way::one_sm, 1, rows);
      for (int blocks = 2; blocks <= device_.cluster_blocks; blocks *= 2) add(Way::cluster, blocks, rows);
    }
    // All teams of a grid are there at once, and those of the other direction too.
    for (int teams = 1; teams <= 16 && teams <= parts(p_.dims.rows, 8); teams *= 2) {
      const auto rows = static_cast<int>(parts(parts(p_.dims.rows, teams), 8) * 8);
      const int64_t most = device_.processors / (p_.directions * parts(p_.dims.rows, rows));
      for (const int units : {4, 8, 12, 16, 24, 32, 48, 64, 96, 128}) {
        const int64_t blocks = parts(p_.dims.hidden, units);
        if (blocks >= 2 && blocks <= most) add(Way::grid, static_cast<int>(blocks), rows);
      }
      if (options_.blocks >= 2 && options_.blocks <= most) add(Way::grid, options_.blocks, rows);
    }
    return found_;
  }

 private:
  void add(Way way, int blocks, int rows) {
    const int64_t units = parts(p_.dims.hidden, blocks);
    if (parts(p_.dims.hidden, units) != blocks) return;  // a block would have none
    const bool tf32 = options_.tf32 && p_.itemsize == 4;
    const Partition how{way, blocks, rows, static_cast<int>(units), device_.block_threads, tf32};
    const size_t bytes = p_.resident_bytes(p_.dims, how, p_.backward);
    if (bytes > 0 && bytes <= device_.shared_bytes) found_.push_back({how, resident(p_, how, device_)});
  }

  const StepProblem& p_;
  const Device& device_;
  const Options& options_;
  std::vector<Cost> found_;
};

}  // namespace

std::vector<Cost> costs(const StepProblem& p, const Device& device, const Options& options) {
  return Candidates(p, device, options).all();
}

Partition choose(const StepProblem& p, const Device& device, const Options& options) {
  const std::vector<Cost> all = costs(p, device, options);
  const Cost* best = nullptr;
  for (const Cost& cost : all) {
    const bool wanted = (options.way == Way::automatic || options.way == cost.how.way) &&
                        (options.blocks == 0 || options.blocks == cost.how.blocks);
    if (wanted && (!best || cost.microseconds < best->microseconds)) best = &cost;
  }
  if (!best) throw std::runtime_error(std::string(name(options.way)) + ": this way does not serve these sizes here");
  return best->how;
}

const char* name(Way way) {
  switch (way) {
    case Way::automatic:
      return "automatic";
    case Way::step_by_step:
      return "step by step";
    case Way::one_sm:
      return "one SM";
    case Way::cluster:
      return "cluster";
    case Way::grid:
      return "grid";
  }
  return "";
}

}  // namespace fastrnn::cuda

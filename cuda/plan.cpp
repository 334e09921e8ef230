#include "plan.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace fastrnn::cuda {
namespace {

// Rough figures of a Hopper GPU; what they decide between differs by more than they are wrong.
constexpr double launch_us = 2.5;              // from one small kernel to the next on a stream
constexpr double device_flops_a_us = 3e7;      // of a small product
constexpr double shared_bytes_a_us = 2e5;      // that an SM reads of its shared memory
constexpr double stage_us = 0.8;               // a pointwise stage inside a kernel, with its barriers
constexpr int64_t rows_a_block = 8;
constexpr double impossible = std::numeric_limits<double>::infinity();

double weights(const StepProblem& p) { return static_cast<double>(p.gates * p.dims.hidden * p.dims.output); }

double step_by_step(const StepProblem& p) {
  return 2 * launch_us + 2 * weights(p) * static_cast<double>(p.dims.rows) / device_flops_a_us;
}

double one_sm(const StepProblem& p, const Device& device) {
  if (p.one_sm_bytes == 0 || p.one_sm_bytes > device.shared_bytes) return impossible;
  const int64_t blocks = (p.dims.rows + rows_a_block - 1) / rows_a_block;
  const int64_t turns = (blocks + device.processors - 1) / device.processors;
  return static_cast<double>(turns) * (stage_us + weights(p) * static_cast<double>(p.itemsize) / shared_bytes_a_us);
}

}  // namespace

std::vector<Cost> costs(const StepProblem& p, const Device& device) {
  return {{Way::one_sm, one_sm(p, device)}, {Way::step_by_step, step_by_step(p)}};
}

Way choose(const StepProblem& p, const Device& device, Way wanted) {
  const std::vector<Cost> all = costs(p, device);
  const auto cheaper = [](const Cost& a, const Cost& b) { return a.microseconds < b.microseconds; };
  if (wanted == Way::automatic) return std::min_element(all.begin(), all.end(), cheaper)->way;
  for (const Cost& cost : all) {
    if (cost.way == wanted && cost.microseconds < impossible) return wanted;
  }
  throw std::runtime_error(std::string(name(wanted)) + ": this way of running does not serve these sizes here");
}

const char* name(Way way) {
  switch (way) {
    case Way::automatic:
      return "automatic";
    case Way::step_by_step:
      return "step by step";
    case Way::one_sm:
      return "one SM";
  }
  return "";
}

}  // namespace fastrnn::cuda

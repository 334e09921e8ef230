// Which way a layer's steps are run: a table of what each would cost.
#pragma once

#include <string>

#include "kernels.h"
#include "launch.h"

namespace fastrnn::cuda {

struct Device {
  size_t shared_bytes;  // that one block may have
  int processors;       // SMs
};

// The steps of one layer and direction.
struct StepProblem {
  Dims dims;
  int gates;
  size_t itemsize;
  size_t one_sm_bytes;  // of shared memory that a block would need; 0 if the way does not serve these sizes
};

struct Cost {
  Way way;
  double microseconds;  // a step; infinite where the way cannot be taken
};

std::vector<Cost> costs(const StepProblem&, const Device&);

// The cheapest way, or `wanted`. Throws std::runtime_error if that cannot be taken.
Way choose(const StepProblem&, const Device&, Way wanted);

}  // namespace fastrnn::cuda

// Which way a layer's steps are run: a table of what each would cost.
#pragma once

#include <string>

#include "kernels.h"
#include "launch.h"

namespace fastrnn::cuda {

struct Device {
  size_t shared_bytes;  // that one block may have
  int processors;       // SMs
  int cluster_blocks;   // the most in a cluster of blocks with so much memory each; 1: there are no clusters
  int block_threads;    // of a block that has W_hh on chip
};

// A way, and for those with W_hh on chip how the blocks share rows of the batch and hidden units.
struct Partition {
  Way way;
  int blocks = 0;  // of a team
  int rows = 0;    // of the batch, a team's
  int units = 0;   // a block's
  int threads = 0;
  bool tf32 = false;  // float32 products on tensor cores
};

// The steps of one layer and direction.
struct StepProblem {
  Dims dims;
  int gates, step_products, directions;  // products that follow one another in a step; directions that run side by side
  size_t itemsize;
  bool backward;
  // Of shared memory that a block would need; 0 if no way with W_hh on chip serves these sizes.
  size_t (*resident_bytes)(const Dims&, const Partition&, bool backward);
};

struct Cost {
  Partition how;
  double microseconds;  // a step
};

// Of all that the device can run, step by step first.
std::vector<Cost> costs(const StepProblem&, const Device&, const Options&);

// The cheapest, or the cheapest of the wanted way. Throws std::runtime_error if that cannot be taken.
Partition choose(const StepProblem&, const Device&, const Options&);

}  // namespace fastrnn::cuda

// Who does what in a call: chosen from a model of what each way of sharing the work would cost on this machine.
#pragma once

#include <string>

#include "kernels.h"

namespace fastrnn {

// All layers of a network look alike enough to share one plan.
struct Problem {
  Dims dims;            // of the widest layer
  double mean_rows;     // that a step has: fewer than the batch's where some rows are shorter than others
  int gates;
  int step_products;    // that follow one another in a step, with a meeting of the team after each
  int directions;
  bool backward;
  int lanes;            // values a vector holds
  int itemsize;
};

struct Plan {
  int directions = 1;  // that run side by side
  int teams = 1;       // a direction's rows are dealt out to
  int team_size = 1;   // threads that share a team's hidden units
  bool insists = false;  // on its threads: a test has forced the partition
  Level weights = Level::l2;
  ChunkRows chunk{};

  int threads() const { return directions * teams * team_size; }
};

Plan plan(const Problem&, int max_threads);

// A table of the ways that plan() weighs, the best first, and what it expects of each.
std::string explain(const Problem&, int max_threads);

}  // namespace fastrnn

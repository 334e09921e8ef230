// Who does what in a call: chosen from a model of what each way of sharing the work would cost on this machine.
#pragma once

#include "kernels.h"

namespace fastrnn {

// All layers of a network look alike enough to share one plan.
struct Problem {
  Dims dims;         // of the widest layer
  int gates;
  int directions;
  bool training;     // backward, or forward with a tape
  int lanes;         // values a vector holds
  int itemsize;
};

struct Plan {
  int directions = 1;  // that run side by side
  int teams = 1;       // a direction's rows are dealt out to
  int team_size = 1;   // threads that share a team's hidden units
  bool tight = false;  // threads meet at every step, and may be fewer where the cores are wanted elsewhere
  ChunkRows chunk{};

  int threads() const { return directions * teams * team_size; }
};

Plan plan(const Problem&, int max_threads);

}  // namespace fastrnn

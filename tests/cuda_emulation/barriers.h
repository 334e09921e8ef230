// __syncthreads and its kin, and the barrier of a cluster.
#pragma once

#include "scheduler.h"

namespace emulation {

void block_barrier(Location);
Barrier::Votes block_vote(bool, Location);
void cluster_barrier(Location);

void complete(Barrier&);  // for requests: lets all who wait go on

}  // namespace emulation

#include "barriers.h"

#include <cstring>

namespace emulation {
namespace {

bool same_place(const Location& a, const Location& b) {
  return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

// `expected` threads must arrive; 0: all of the block that have not returned.
Barrier::Votes arrive(Barrier& barrier, unsigned expected, bool vote, const Location& where) {
  Thread& me = *current;
  const unsigned phase = barrier.phase % 2;
  me.where = where;
  release(&barrier.order[phase]);
  wait(Thread::State::at_barrier, [&] {
    progress();
    if (!barrier.waiting.empty() && !same_place(barrier.waiting[0]->where, where)) {
      return fault("divergent barrier: others wait at line " + std::to_string(barrier.waiting[0]->where.line()), where);
    }
    barrier.any |= vote;
    barrier.all &= vote;
    barrier.count += vote;
    barrier.waiting.push_back(&me);
    if (barrier.waiting.size() == (expected ? expected : me.block->live)) complete(barrier);
  });
  acquire(&barrier.order[phase]);
  return barrier.result[phase];
}

}  // namespace

void complete(Barrier& barrier) {
  barrier.result[barrier.phase % 2] = {barrier.any, barrier.all, barrier.count};
  barrier.any = false, barrier.all = true, barrier.count = 0;
  ++barrier.phase;
  const std::vector<Thread*> all = std::move(barrier.waiting);
  barrier.waiting.clear();
  for (Thread* thread : all) wake(*thread);
}

void block_barrier(Location where) { arrive(current->block->barrier, 0, false, where); }

Barrier::Votes block_vote(bool vote, Location where) { return arrive(current->block->barrier, 0, vote, where); }

void cluster_barrier(Location where) {
  arrive(grid->cluster_barriers[current->block->cluster], grid->shape.cluster * grid->block_threads(), false, where);
}

}  // namespace emulation

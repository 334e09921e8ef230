#include "scheduler.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>

#include "barriers.h"
#include "memory.h"
#include "warp.h"

namespace emulation {

Settings settings;
Thread* current = nullptr;
Grid* grid = nullptr;

namespace {

constexpr int patience = 64;  // rounds in which every thread that can run spins, before that is a deadlock

class Scheduler {
 public:
  Scheduler(const Shape& shape, const std::function<void()>& kernel) : random_(settings.seed) {
    grid_.shape = shape, grid_.kernel = &kernel;
    const unsigned count = grid_.block_count();
    if (shape.cluster == 0 || count % shape.cluster) throw Fault("the grid is not a multiple of the cluster");
    grid_.blocks.resize(count);
    grid_.cluster_barriers.resize(count / shape.cluster);
    // A launch that is not cooperative may not rely on more than one cluster at a time; two let their races show.
    capacity_ = settings.resident         ? settings.resident
                : grid_.shape.cooperative ? count
                                          : std::min(count, 2 * shape.cluster);
    for (unsigned i = count / shape.cluster; i-- > 0;) clusters_.push_back(i);  // the next one last
    if (settings.order == Order::reverse) std::reverse(clusters_.begin(), clusters_.end());
    if (settings.order == Order::random) std::shuffle(clusters_.begin(), clusters_.end(), random_);
  }

  ~Scheduler() {
    for (auto& block : grid_.blocks) {
      if (!block) continue;
      free_shared(block->shared, grid_.shape.shared_bytes);
      free_fibers_of(*block);
    }
  }

  void run() {
    grid = &grid_;
    while (grid_.fault.empty()) {
      start_clusters();
      if (ready_.empty() && !revive_spinners()) break;
      step(take_ready());
    }
    acquire(&ended_);
    check_read_only_loads();
    grid = nullptr;
    if (!grid_.fault.empty()) throw Fault(grid_.fault);
  }

  void wake(Thread& thread) {
    thread.state = Thread::State::ready;
    ready_.push_back(&thread);
    idle_ = 0;
  }
  void progress() { idle_ = 0; }
  void spin(Thread& thread) { spinning_.push_back(&thread); }

  // The body of every fiber.
  static void body();

 private:
  void start_clusters() {
    const unsigned size = grid_.shape.cluster;
    while (!clusters_.empty() && resident_ + size <= capacity_) {
      const unsigned cluster = clusters_.back();
      clusters_.pop_back();
      for (unsigned rank = 0; rank < size; ++rank) start_block(cluster * size + rank, cluster, rank);
      // The last one in the list runs next.
      if (settings.order == Order::forward) std::reverse(ready_.begin(), ready_.end());
    }
  }

  void start_block(unsigned number, unsigned cluster, unsigned rank) {
    const dim3 size = grid_.shape.block, blocks = grid_.shape.grid;
    auto block = std::make_unique<Block>();
    block->number = number, block->cluster = cluster, block->cluster_rank = rank;
    block->live = grid_.block_threads();
    block->shared = take_shared(grid_.shape.shared_bytes);
    block->threads = std::vector<Thread>(block->live);
    for (unsigned t = 0; t < block->live; ++t) {
      Thread& thread = block->threads[t];
      thread.number = t, thread.lane = t % 32, thread.block = block.get();
      thread.index = {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
      thread.block_index = {number % blocks.x, number / blocks.x % blocks.y, number / (blocks.x * blocks.y)};
      thread.fiber = take_fiber();
      thread.fiber->start(&body);
      ready_.push_back(&thread);
    }
    ++resident_;
    live_ += block->live;
    grid_.blocks[number] = std::move(block);
    release(&launched_);
  }

  static void free_fibers_of(Block& block) {
    for (Thread& thread : block.threads) {
      if (thread.state == Thread::State::done && thread.fiber) free_fibers().push_back(std::move(thread.fiber));
    }
  }
  static std::vector<std::unique_ptr<Fiber>>& free_fibers() {
    static std::vector<std::unique_ptr<Fiber>> fibers;
    return fibers;
  }
  static std::unique_ptr<Fiber> take_fiber() {
    if (free_fibers().empty()) return std::make_unique<Fiber>();
    std::unique_ptr<Fiber> fiber = std::move(free_fibers().back());
    free_fibers().pop_back();
    return fiber;
  }

  // When all who can run spin, they look again. False when the launch is over, or stuck.
  bool revive_spinners() {
    if (live_ == 0 && clusters_.empty()) return false;
    if (spinning_.empty() || ++idle_ > patience) {
      grid_.fault = stuck();
      return false;
    }
    std::swap(ready_, spinning_);
    for (Thread* thread : ready_) thread->state = Thread::State::ready;
    return true;
  }

  Thread& take_ready() {
    const size_t i = settings.order == Order::random ? random_() % ready_.size() : ready_.size() - 1;
    Thread* thread = ready_[i];
    ready_[i] = ready_.back();
    ready_.pop_back();
    return *thread;
  }

  void step(Thread& thread) {
    current = &thread;
    thread.fiber->resume();
    if (thread.state == Thread::State::done) {
      ended(thread);
    } else {
      thread.request(thread.request_data);
    }
    current = nullptr;
  }

  void ended(Thread& thread) {
    Block& block = *thread.block;
    --live_;
    progress();
    if (--block.live == 0) {
      --resident_;
      forbid_shared(block.shared, grid_.shape.shared_bytes);  // no other block of the cluster may reach it any more
#if !defined(EMULATION_THREAD)  // there, a fiber that had two threads of a launch would make an order between them
      free_fibers_of(block);
#endif
      return;
    }
    lane_left(thread);
    if (!block.barrier.waiting.empty() && block.barrier.waiting.size() == block.live) complete(block.barrier);
  }

  std::string stuck() const {
    std::map<std::string, int> counts;
    for (const auto& block : grid_.blocks) {
      if (!block) continue;
      for (const Thread& thread : block->threads) {
        const std::string line = " at line " + std::to_string(thread.where.line());
        switch (thread.state) {
          case Thread::State::at_barrier:
            ++counts["wait at the barrier" + line];
            break;
          case Thread::State::in_warp_call:
            ++counts["wait for their warp" + line];
            break;
          case Thread::State::spinning:
            ++counts["spin"];
            break;
          case Thread::State::ready:
          case Thread::State::done:
            break;
        }
      }
    }
    std::string text = "deadlock: " + std::to_string(resident_) + " of " + std::to_string(grid_.block_count()) +
                       " blocks resident, " + std::to_string(clusters_.size()) + " clusters not started";
    for (const auto& [what, count] : counts) text += "; " + std::to_string(count) + " threads " + what;
    return text;
  }

  Grid grid_;
  std::mt19937_64 random_;
  unsigned capacity_ = 0, resident_ = 0, live_ = 0;
  int idle_ = 0;
  std::vector<unsigned> clusters_;  // still to start
  std::vector<Thread*> ready_, spinning_;
  char launched_, ended_;  // threads' beginnings and ends, for ThreadSanitizer
};

Scheduler* scheduler = nullptr;

void Scheduler::body() {
  acquire(&scheduler->launched_);
  (*grid->kernel)();
  release(&scheduler->ended_);
  current->state = Thread::State::done;
  current->fiber->leave(true);
}

}  // namespace

void run(const Shape& shape, const std::function<void()>& kernel) {
  Scheduler one(shape, kernel);
  scheduler = &one;
  one.run();
  scheduler = nullptr;
}

void wake(Thread& thread) { scheduler->wake(thread); }
void progress() { scheduler->progress(); }

void spin() {
  Thread& me = *current;
  wait(Thread::State::spinning, [&me] { scheduler->spin(me); });
}

void fault(const std::string& what, const Location& where) {
  if (!grid->fault.empty()) return;
  grid->fault = what + " (block " + std::to_string(current->block->number) + ", thread " +
                std::to_string(current->number) + ", " + where.file_name() + ":" + std::to_string(where.line()) + ")";
}

}  // namespace emulation

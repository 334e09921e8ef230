#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <new>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

#include "fastrnn.h"
#include "floating_point.h"
#include "processors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrnn {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

using Clock = std::chrono::steady_clock;

// A wait is short unless somebody's core is wanted elsewhere; then one's own is better given away.
constexpr int short_spins = 300;

// How long threads have waited beyond short waits, all together.
std::atomic<Clock::rep> stalled{0};

template <class Condition> void spin_until(Condition&& holds) {
  for (int spins = 0; spins < short_spins; ++spins) {
    if (holds()) return;
    pause();
  }
  const auto start = Clock::now();
  while (!holds()) sched_yield();
  stalled.fetch_add((Clock::now() - start).count(), std::memory_order_relaxed);
}

// Whether calls lose more to stalls than more threads gain them. Only for the caller that has the pool.
class Judge {
 public:
  // Of a call of `count` threads that took so long, in which they were stalled so long all together.
  void see(Clock::duration took, Clock::duration stall, int count) {
    busy_ += took, lost_ += stall / (count - 1);  // one is late, all others wait
    if (busy_ < window) return;
    if (lost_ * 5 > busy_ * 2) {
      crowded_until_.store((Clock::now() + rest_).time_since_epoch().count(), std::memory_order_relaxed);
      rest_ = std::min(2 * rest_, longest_rest);
    } else {
      rest_ = shortest_rest;
    }
    busy_ = lost_ = {};
  }
  bool crowded() const {
    return Clock::now().time_since_epoch().count() < crowded_until_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr Clock::duration window = std::chrono::milliseconds(20);
  static constexpr Clock::duration shortest_rest = std::chrono::milliseconds(20);
  static constexpr Clock::duration longest_rest = std::chrono::milliseconds(320);
  Clock::duration busy_{}, lost_{}, rest_ = shortest_rest;
  std::atomic<Clock::rep> crowded_until_{0};
};

// A worker stays awake this long after a call, for the next one; longer would take the core from other libraries.
constexpr auto stay_awake = std::chrono::microseconds(30);

struct Job {
  void (*body)(void*, int);
  void* context;
};

// Keeps signals, which are for the program's own threads, from those started while it lives.
class NoSignals {
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~NoSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  NoSignals(const NoSignals&) = delete;
  NoSignals& operator=(const NoSignals&) = delete;

 private:
  sigset_t before_;
};

class Pool {
 public:
  bool try_acquire() { return !busy_.test_and_set(std::memory_order_acquire); }
  void release() { busy_.clear(std::memory_order_release); }
  Judge& judge() { return judge_; }

  // How many workers there are after trying to have `wanted`. Only for the caller that has the pool.
  int grow(int wanted) noexcept {
    if (size() < wanted) start(wanted);
    return size();
  }

  void run(int count, const Job& job) {
    job_ = job;
    places_.take(0);
    unfinished_.store(count - 1, std::memory_order_relaxed);
    for (int rank = 1; rank < count; ++rank) {
      std::atomic<unsigned>& round = workers_[static_cast<size_t>(rank) - 1]->round;
      round.store(round.load(std::memory_order_relaxed) + 1);
      round.notify_one();
    }
    job.body(job.context, 0);
    spin_until([&] { return unfinished_.load(std::memory_order_acquire) == 0; });
  }

 private:
  struct alignas(64) Worker {
    std::atomic<unsigned> round{0};  // of work given to this one
  };

  int size() const { return static_cast<int>(workers_.size()); }

  void start(int wanted) noexcept {
    try {
      const NoSignals none;
      while (size() < wanted) {
        workers_.push_back(std::make_unique<Worker>());
        try {
          std::thread(&Pool::work, this, workers_.back().get(), size()).detach();
        } catch (...) {
          workers_.pop_back();
          throw;
        }
      }
    } catch (const std::system_error&) {  // no more threads to be had, or
    } catch (const std::bad_alloc&) {     // no memory for them: the call goes on with those there are
    }
  }

  void work(const Worker* self, int rank) {
    const KernelMode mode;
    for (unsigned seen = 0;;) {
      seen = next_round(*self, seen);
      places_.take(rank);
      job_.body(job_.context, rank);
      unfinished_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  static unsigned next_round(const Worker& self, unsigned seen) {
    const auto until = Clock::now() + stay_awake;
    do {
      for (int i = 0; i < 64; ++i) {
        const unsigned now = self.round.load(std::memory_order_acquire);
        if (now != seen) return now;
        pause();
      }
    } while (Clock::now() < until);
    self.round.wait(seen, std::memory_order_acquire);
    return self.round.load(std::memory_order_acquire);
  }

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  Judge judge_;
  Places places_;
  std::vector<std::unique_ptr<Worker>> workers_;
  Job job_{};
  alignas(64) std::atomic<int> unfinished_{0};
};

// Runs a job on the threads of an OpenMP runtime. False: it gave fewer, as it may, and nothing has run.
bool run_on(const OpenMP& host, int count, const Job& job) {
  struct Region {
    const OpenMP& host;
    int count;
    const Job& job;
    bool done;
  } region{host, count, job, false};
  const auto body = [](void* context) {
    auto& r = *static_cast<Region*>(context);
    if (r.host.num_threads() != r.count) return;
    const KernelMode mode;
    const int rank = r.host.thread_num();
    r.job.body(r.job.context, rank);
    if (rank == 0) r.done = true;
  };
  host.parallel(body, &region, static_cast<unsigned>(count), 0);
  return region.done;
}

// What is worked out once is so while the program loads: a child that is forked later never finds it half done.
std::atomic<int> limit{initial_threads()};

std::atomic<const OpenMP*> openmp{nullptr};
std::atomic<bool> forked{false};

// A child has none of its parent's threads, and the parent's pool may have been in use: it starts afresh. The old pool
// and, at exit, the last one are left to the operating system, since workers may still look at them.
std::atomic<Pool*> pool{new Pool};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  pool.store(new Pool);
  openmp.store(nullptr);
  forked.store(true);
});

Pool& current_pool() { return *pool.load(); }

}  // namespace

int num_threads() { return limit.load(std::memory_order_relaxed); }
void set_num_threads(int threads) { limit.store(std::clamp(threads, 1, max_threads), std::memory_order_relaxed); }

void use_openmp(const OpenMP& host) {
  if (forked.load()) return;
  openmp.store(new OpenMP(host));  // never destroyed: calls may be looking at the one before
}

void Barrier::wait() {
  if (size_ == 1) return;
  const unsigned round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  spin_until([&] { return round_.load(std::memory_order_acquire) != round; });
}

Lease::Lease(int wanted, bool insists, bool on_openmp) : threads_(1) {
  wanted = std::min(wanted, num_threads());
  if (wanted <= 1) return;
  Pool& workers = current_pool();
  if ((!insists && workers.judge().crowded()) || !workers.try_acquire()) return;
  holds_pool_ = true;
  if (on_openmp) openmp_ = openmp.load();
  if (openmp_) {
    threads_ = openmp_->in_parallel() ? 1 : std::min(wanted, openmp_->thread_limit());
  } else {
    threads_ = std::min(wanted, workers.grow(wanted - 1) + 1);
  }
}

Lease::~Lease() {
  if (holds_pool_) current_pool().release();
}

void Lease::run(int count, void (*body)(void*, int), void* context) {
  const KernelMode mode;
  if (count <= 1) {
    body(context, 0);
    return;
  }
  Pool& workers = current_pool();
  const auto start = Clock::now();
  const Clock::rep before = stalled.load(std::memory_order_relaxed);
  if (!openmp_ || !run_on(*openmp_, count, {body, context})) {
    if (workers.grow(count - 1) < count - 1) throw std::runtime_error("fastrnn: no more threads can be started");
    workers.run(count, {body, context});
  }
  const Clock::duration stall(stalled.load(std::memory_order_relaxed) - before);
  workers.judge().see(Clock::now() - start, stall, count);
}

}  // namespace fastrnn

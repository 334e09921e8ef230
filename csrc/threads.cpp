#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#include "fastrnn.h"

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

// Denormals count as zero while it lives: gates that have saturated would otherwise slow every product down.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // FTZ, DAZ
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t{1} << 24)));  // FZ
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// A wait at a barrier is short unless the machine is oversubscribed; then the core is better given away.
constexpr int barrier_spins = 300;
// How long tight calls keep to one thread after one was interrupted.
constexpr auto crowded_time = std::chrono::milliseconds(20);
constexpr int max_threads = 4095;

template <class Condition> void spin_until(Condition&& holds) {
  for (int spins = 0; !holds(); ++spins) {
    if (spins < barrier_spins) {
      pause();
    } else {
      sched_yield();
    }
  }
}

// A worker stays awake this long after a call, for the next one; longer would take the core from other libraries.
constexpr auto stay_awake = std::chrono::microseconds(30);

struct Job {
  void (*body)(void*, int);
  void* context;
};

class Pool {
 public:
  bool try_acquire() { return !busy_.test_and_set(std::memory_order_acquire); }
  void release() { busy_.clear(std::memory_order_release); }

  // How many workers there are after trying to have `wanted`. Only for the caller that has the pool.
  int grow(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the program's own threads
    try {
      while (workers_ < wanted) {
        std::thread(&Pool::work, this, workers_ + 1, round_.load()).detach();
        ++workers_;
      }
    } catch (const std::system_error&) {
      // No more threads to be had: the call goes on with those there are.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return workers_;
  }

  void run(int count, const Job& job) {
    job_ = job;
    unfinished_.store(count - 1, std::memory_order_relaxed);
    const unsigned number = round_.load(std::memory_order_relaxed) / round_step + 1;
    round_.store(number * round_step + static_cast<unsigned>(count));
    round_.notify_all();
    job.body(job.context, 0);
    spin_until([&] { return unfinished_.load(std::memory_order_acquire) == 0; });
  }

 private:
  void work(int rank, unsigned seen) {
    FlushDenormals mode;
    for (;;) {
      seen = next_round(seen);
      // Only a worker that the round counts may look at the job: the others are not waited for.
      if (rank >= static_cast<int>(seen % round_step)) continue;
      job_.body(job_.context, rank);
      unfinished_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  unsigned next_round(unsigned seen) {
    const auto until = std::chrono::steady_clock::now() + stay_awake;
    do {
      for (int i = 0; i < 64; ++i) {
        const unsigned now = round_.load(std::memory_order_acquire);
        if (now != seen) return now;
        pause();
      }
    } while (std::chrono::steady_clock::now() < until);
    round_.wait(seen, std::memory_order_acquire);
    return round_.load(std::memory_order_acquire);
  }

  static constexpr unsigned round_step = max_threads + 1;  // a round is its number and its count of threads in one word

  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  int workers_ = 0;
  Job job_{};
  alignas(64) std::atomic<unsigned> round_{0};
  alignas(64) std::atomic<int> unfinished_{0};
};

std::atomic<Pool*> pool{nullptr};

// A child has none of its parent's threads, and the parent's pool may have been in use: it starts afresh. The old pool
// and, at exit, the last one are left to the operating system, since workers may still look at them.
Pool& current_pool() {
  static const bool prepared = [] {
    pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, [] { pool.store(new Pool); });
    return true;
  }();
  (void)prepared;
  return *pool.load();
}

// Processors that this process may use: its affinity, and the quota of its control group.
int available_processors() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long quota = 0, period = 0;
    if (std::fscanf(file, "%ld %ld", &quota, &period) == 2 && quota > 0 && period > 0) {
      count = std::min(count, static_cast<int>((quota + period - 1) / period));
    }
    std::fclose(file);
  }
  return std::clamp(count, 1, max_threads);
}

int initial_threads() {
  if (const char* text = std::getenv("FASTRNN_NUM_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && value >= 1 && value <= max_threads) return static_cast<int>(value);
    std::fprintf(stderr, "fastrnn: FASTRNN_NUM_THREADS=%s is not a number of threads (1 to %d); it is ignored\n", text,
                 max_threads);
  }
  return available_processors();
}

std::atomic<int>& thread_limit() {
  static std::atomic<int> limit{initial_threads()};
  return limit;
}

// When the machine counts as quiet again, in ticks of the steady clock.
std::atomic<std::chrono::steady_clock::rep> crowded_until{0};

bool crowded() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return now.count() < crowded_until.load(std::memory_order_relaxed);
}

// Times that this thread had to leave its core to another.
long interruptions() {
#if defined(RUSAGE_THREAD)
  rusage usage{};
  if (getrusage(RUSAGE_THREAD, &usage) == 0) return usage.ru_nivcsw;
#endif
  return 0;
}

}  // namespace

int num_threads() { return thread_limit().load(std::memory_order_relaxed); }
void set_num_threads(int threads) {
  thread_limit().store(std::clamp(threads, 1, max_threads), std::memory_order_relaxed);
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

Lease::Lease(int wanted, bool tight) : threads_(1), tight_(tight) {
  wanted = std::min(wanted, num_threads());
  if (wanted <= 1 || (tight && crowded())) return;
  Pool& workers = current_pool();
  if (!workers.try_acquire()) return;
  holds_pool_ = true;
  threads_ = std::min(wanted, workers.grow(wanted - 1) + 1);
}

Lease::~Lease() {
  if (holds_pool_) current_pool().release();
}

void Lease::run(int count, void (*body)(void*, int), void* context) {
  FlushDenormals mode;
  if (count <= 1) {
    body(context, 0);
  } else {
    const long before = tight_ ? interruptions() : 0;
    current_pool().run(count, {body, context});
    if (tight_ && interruptions() > before) {
      const auto until = std::chrono::steady_clock::now() + crowded_time;
      crowded_until.store(until.time_since_epoch().count(), std::memory_order_relaxed);
    }
  }
}

}  // namespace fastrnn

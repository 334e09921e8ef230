#include "processors.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace fastrnn {
namespace {

int available_processors() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
  const auto limit = [&](long quota, long period) {
    if (quota > 0 && period > 0) count = std::min(count, static_cast<int>((quota + period - 1) / period));
  };
  const auto read = [](const char* path, auto... numbers) {
    std::FILE* file = std::fopen(path, "r");
    if (!file) return;
    // "max" in place of a number leaves 0, no limit
    [[maybe_unused]] const int found = std::fscanf(file, sizeof...(numbers) == 2 ? "%ld %ld" : "%ld", numbers...);
    std::fclose(file);
  };
  long quota = 0, period = 0;
  read("/sys/fs/cgroup/cpu.max", &quota, &period);
  limit(quota, period);
  quota = period = 0;
  read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &quota);
  read("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &period);
  limit(quota, period);
  return std::clamp(count, 1, max_threads);
}

constexpr int unknown = 0;
int processor() { return sched_getcpu() + 1; }  // from 1 on, or unknown

}  // namespace

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

void Places::take(int rank) {
  int place = processor();
  for (int other = 0; other < rank; ++other) {
    if (at(other) == place && place != unknown) {
      place = leave(rank);
      break;
    }
  }
  std::atomic<int>& own = at_[static_cast<size_t>(rank)];
  if (own.load(std::memory_order_relaxed) != place) own.store(place, std::memory_order_relaxed);
}

// Leaving is being forbidden to stay, for a moment.
int Places::leave(int rank) const {
  cpu_set_t allowed, free;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    free = allowed;
    for (int other = 0; other < rank; ++other) {
      if (at(other) != unknown) CPU_CLR(static_cast<size_t>(at(other)) - 1, &free);
    }
    if (CPU_COUNT(&free) > 0 && sched_setaffinity(0, sizeof free, &free) == 0) {
      sched_setaffinity(0, sizeof allowed, &allowed);
    }
  }
  return processor();
}

}  // namespace fastrnn

// The emulator's own test: kernels that use all of the kernel language, each right, or with one mistake that an
// emulator must find.
//
//     bugs [--order forward|reverse|random] [--seed N] [BUG]
//
// Ends with 0 when all results are right and nothing was found.
#include <cstdio>
#include <cstring>
#include <vector>

#include "../cuda/device.h"
#include "carver.h"
#include "values.cuh"

using namespace fastrnn::cuda;

namespace {

// Each names what is wrong. The comment says which build has to find it: any schedule, ASan or UBSan, TSan.
enum class Bug {
  none,
  no_barrier_before_reading,   // TSan: shared memory is read while others still write it
  no_barrier_before_release,   // TSan: the flag goes up before the other threads of the block have written
  no_barrier_after_waiting,    // TSan: one thread waited for the flag, the others did not
  relaxed_poll,                // TSan: the flag is read without acquire
  read_only_load_of_written,   // any: ld.global.nc of what the launch writes
  cluster_left_too_soon,       // ASan: a block ends while another reads its shared memory
  shared_off_by_one,           // ASan
  misaligned_vector,           // UBSan: a float4 that is not on 16 bytes
  more_blocks_than_fit,        // any: blocks wait for one that cannot start
  barrier_in_a_branch,         // any: part of the block meets another barrier
  full_mask_in_half_a_warp,    // any: the mask names lanes that never come
  block_barrier_for_cluster,   // TSan: __syncthreads where the whole cluster has to meet
  overlapping_partition,       // TSan: two blocks write one element
  barrier_left_out_by_a_warp,  // TSan: a warp returns early, so the others do not wait for it
  count
};

const char* const names[] = {"none",
                             "no_barrier_before_reading",
                             "no_barrier_before_release",
                             "no_barrier_after_waiting",
                             "relaxed_poll",
                             "read_only_load_of_written",
                             "cluster_left_too_soon",
                             "shared_off_by_one",
                             "misaligned_vector",
                             "more_blocks_than_fit",
                             "barrier_in_a_branch",
                             "full_mask_in_half_a_warp",
                             "block_barrier_for_cluster",
                             "overlapping_partition",
                             "barrier_left_out_by_a_warp"};
static_assert(sizeof(names) / sizeof(*names) == static_cast<size_t>(Bug::count));

// ---------------------------------------------------------------------------------------------- a sum over each block

__global__ void block_sum(const float* x, int n, float* sums, Bug bug) {
  Carver memory(shared_memory(), 16);
  float* shared = memory.take<float>(blockDim.x / 32);
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float sum = 0;
  if (bug == Bug::misaligned_vector) {
    const float4 four = *reinterpret_cast<const float4*>(x + 1 + 4 * threadIdx.x);
    sum = four.x + four.y + four.z + four.w;
  } else {
    const int stride = static_cast<int>(gridDim.x * blockDim.x);
    for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += stride) sum += x[i];
  }
  if (bug != Bug::full_mask_in_half_a_warp || lane < 16) {
    for (unsigned lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_down_sync(~0u, sum, lanes);
  }
  if (bug == Bug::barrier_left_out_by_a_warp && warp == 2) {
    if (lane == 0) shared[warp] = sum;
    return;
  }
  if (lane == 0) shared[warp + (bug == Bug::shared_off_by_one)] = sum;
  if (bug == Bug::barrier_in_a_branch && warp < 2) {
    __syncthreads();
  } else if (bug != Bug::no_barrier_before_reading) {
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    for (unsigned i = 1; i < blockDim.x / 32; ++i) sum += shared[i];
    sums[blockIdx.x] = sum;
  }
}

// ----------------------------------------- blocks that meet at each step: h <- W h / 2 by rows, flags between the
// blocks

__global__ void power_steps(const float* w, float* h, uint32_t* arrived, int size, int steps, Bug bug) {
  auto* now = reinterpret_cast<float*>(shared_memory());
  const int threads = static_cast<int>(blockDim.x), blocks = static_cast<int>(gridDim.x);
  const int share = size / blocks, first = static_cast<int>(blockIdx.x) * share;
  const bool overlaps = bug == Bug::overlapping_partition && static_cast<int>(blockIdx.x) + 1 < blocks;
  for (int step = 0; step < steps; ++step) {
    const float* from = h + step % 2 * size;
    for (int i = static_cast<int>(threadIdx.x); i < size; i += threads) {
      now[i] = bug == Bug::read_only_load_of_written ? __ldg(&from[i]) : from[i];
    }
    __syncthreads();
    for (int row = first + static_cast<int>(threadIdx.x); row < first + share + overlaps; row += threads) {
      float sum = 0;
      for (int k = 0; k < size; ++k) sum += w[row * size + k] * now[k];
      h[(step + 1) % 2 * size + row] = sum / 2;
    }
    if (bug != Bug::no_barrier_before_release) __syncthreads();
    if (threadIdx.x == 0) {
      add_release(arrived, 1);
      const auto all = static_cast<uint32_t>((step + 1) * blocks);
      if (bug == Bug::relaxed_poll) {
        while (load_relaxed(arrived) < all) spin_pause();
      } else {
        while (load_acquire(arrived) < all) spin_pause();
      }
    }
    if (bug != Bug::no_barrier_after_waiting) __syncthreads();
  }
}

// ------------------------------------------------------------------------- a sum over the shared memory of a cluster

__global__ void cluster_sum(const float* x, float* sums, Bug bug) {
  auto* own = reinterpret_cast<float*>(shared_memory());
  own[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
  if (bug == Bug::block_barrier_for_cluster) {
    __syncthreads();
  } else {
    cluster_barrier();
  }
  if (cluster_rank() == 0) {
    float sum = 0;
    for (unsigned rank = 0; rank < cluster_size(); ++rank) sum += in_block(own, rank)[threadIdx.x];
    sums[blockIdx.x / cluster_size() * blockDim.x + threadIdx.x] = sum;
  }
  if (bug != Bug::cluster_left_too_soon) cluster_barrier();
}

// ---------------------------------------------------------------------------------------------- calls of a warp

// A block of one warp. Counts what is not as CUDA says.
__global__ void warp_calls(int* wrong_ones) {
  const unsigned lane = threadIdx.x;
  int* shared = reinterpret_cast<int*>(shared_memory());
  int found = 0;
  found += __shfl_sync(~0u, lane, 5) != 5;
  found += __shfl_xor_sync(~0u, lane, 3) != (lane ^ 3);
  found += __shfl_down_sync(~0u, lane, 4) != (lane < 28 ? lane + 4 : lane);
  found += __ballot_sync(~0u, lane % 3 == 0) != 0x49249249u;
  if (lane < 16) found += __ballot_sync(0xffffu, 1) != 0xffffu;
  shared[lane] = static_cast<int>(lane);
  __syncwarp();
  found += shared[31 - lane] != static_cast<int>(31 - lane);
  found += !__syncthreads_or(lane == 7) || __syncthreads_or(0);
  found += !__syncthreads_and(1) || __syncthreads_and(lane != 7);
  wrong_ones[lane] = found;
}

// ---------------------------------------------------------------------------------- one tile on the tensor cores

// d (16, 8) = a (16, 16) b^T, b (8, 16)
template <class T> __global__ void tile(const T* a, const T* b, float* d) {
  const unsigned group = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto pair = [](const T* p) {
    uint32_t two;
    memcpy(&two, p, sizeof(two));
    return two;
  };
  uint32_t of_a[4], of_b[2];
  float of_d[4] = {};
  for (unsigned i = 0; i < 4; ++i) of_a[i] = pair(a + (group + i % 2 * 8) * 16 + 2 * t + i / 2 * 8);
  for (unsigned i = 0; i < 2; ++i) of_b[i] = pair(b + group * 16 + 2 * t + i * 8);
  multiply_16x8x16(T{}, of_d, of_a, of_b);
  for (unsigned i = 0; i < 4; ++i) d[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = of_d[i];
}
template <class T> __global__ void round_all(const float* from, T* to) {
  round_into(to[threadIdx.x], from[threadIdx.x]);
}

// ------------------------------------------------------------------------------------------------------------ checks

int wrong = 0;

void check(const char* what, double error) {
  if (error < 1e-5) return;
  std::printf("%s: error %.2e\n", what, error);
  ++wrong;
}

std::vector<float> numbers(int n) {  // whole multiples of 1/8: sums of them have no rounding error
  std::vector<float> values(static_cast<size_t>(n));
  uint32_t state = 12345;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int>(state >> 28) - 8) / 8;
  }
  return values;
}

DeviceArray on_device(const std::vector<float>& values) {
  const char* bytes = reinterpret_cast<const char*>(values.data());
  return DeviceArray(std::vector<char>(bytes, bytes + values.size() * sizeof(float)));
}
float* floats(const DeviceArray& array) { return static_cast<float*>(array.data()); }
std::vector<float> on_host(const DeviceArray& array) {
  const std::vector<char> bytes = array.host();
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

double difference(const std::vector<float>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double d = std::fabs(a[i] - b[i]);
    if (!(d <= most)) most = d;  // NaN counts
  }
  return most;
}

void check_block_sum(Bug bug) {
  const std::vector<float> x = numbers(1000);
  const DeviceArray from = on_device(x), to(3 * sizeof(float));
  launch({3, 128, 128}, nullptr, block_sum, floats(from), 1000, floats(to), bug);
  double expected = 0, sum = 0;
  for (const float value : x) expected += value;
  for (const float value : on_host(to)) sum += value;
  check("block_sum", std::fabs(sum - expected));
}

void check_power_steps(Bug bug) {
  constexpr int size = 32, steps = 4, blocks = 4;
  const std::vector<float> w = numbers(size * size), start = numbers(size);
  std::vector<float> h = start;
  h.resize(2 * size);
  const DeviceArray factors = on_device(w), values = on_device(h), flag(sizeof(uint32_t));
  device_set(flag.data(), 0, sizeof(uint32_t));
#if !defined(__CUDACC__)
  emulation::settings.resident = bug == Bug::more_blocks_than_fit ? blocks - 1 : 0;
#endif
  launch({blocks, 32, size * sizeof(float), 1, true}, nullptr, power_steps, floats(factors), floats(values),
         static_cast<uint32_t*>(flag.data()), size, steps, bug);
  std::vector<double> now(start.begin(), start.end()), next(size);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < size; ++i) {
      next[static_cast<size_t>(i)] = 0;
      for (int k = 0; k < size; ++k) {
        next[static_cast<size_t>(i)] += w[static_cast<size_t>(i * size + k)] * now[static_cast<size_t>(k)] / 2;
      }
    }
    now = next;
  }
  check("power_steps", difference(on_host(values), now));
}

void check_cluster_sum(Bug bug) {
  constexpr size_t threads = 32, cluster = 4, clusters = 2;
  const std::vector<float> x = numbers(threads * cluster * clusters);
  const DeviceArray from = on_device(x), to(clusters * threads * sizeof(float));
  launch({cluster * clusters, threads, threads * sizeof(float), cluster}, nullptr, cluster_sum, floats(from),
         floats(to), bug);
  std::vector<double> expected(clusters * threads);
  for (size_t i = 0; i < x.size(); ++i) expected[i / (threads * cluster) * threads + i % threads] += x[i];
  check("cluster_sum", difference(on_host(to), expected));
}

void check_warp_calls() {
  const DeviceArray found(32 * sizeof(int));
  launch({1, 32, 32 * sizeof(int)}, nullptr, warp_calls, static_cast<int*>(found.data()));
  for (const char byte : found.host()) check("warp_calls", byte);
}

template <class T> void check_tile() {
  const std::vector<float> a = numbers(16 * 16), b = numbers(8 * 16);
  const DeviceArray wide_a = on_device(a), wide_b = on_device(b);
  const DeviceArray narrow_a(a.size() * 2), narrow_b(b.size() * 2), d(16 * 8 * sizeof(float));
  launch({1, 256}, nullptr, round_all<T>, floats(wide_a), static_cast<T*>(narrow_a.data()));
  launch({1, 128}, nullptr, round_all<T>, floats(wide_b), static_cast<T*>(narrow_b.data()));
  launch({1, 32}, nullptr, tile<T>, static_cast<const T*>(narrow_a.data()), static_cast<const T*>(narrow_b.data()),
         floats(d));
  std::vector<double> expected(16 * 8);
  for (size_t i = 0; i < 16; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      for (size_t k = 0; k < 16; ++k) expected[i * 8 + j] += a[i * 16 + k] * b[j * 16 + k];
    }
  }
  check("tile", difference(on_host(d), expected));
}

#if !defined(__CUDACC__)
// The emulator's own rounding, at every 16-bit value and around each tie.
template <class Narrow, class Widen> void check_rounding(const char* what, Narrow narrow, Widen widen) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = widen(half);
    if (value != value) {
      const float back = widen(narrow(value));
      if (back == back) check(what, 1);
      continue;
    }
    if (narrow(value) != half) check(what, 1);
    const float next = widen(static_cast<uint16_t>(half + 1));
    if (!std::isfinite(value) || !std::isfinite(next)) continue;
    const float middle = static_cast<float>((static_cast<double>(value) + next) / 2);  // exact
    const auto even = static_cast<uint16_t>(half + half % 2);
    if (narrow(middle) != even) check(what, 1);
    if (narrow(std::nextafter(middle, value)) != half) check(what, 1);
  }
}
#endif

}  // namespace

int main(int count, char** arguments) {
  Bug bug = Bug::none;
  for (int i = 1; i < count; ++i) {
#if !defined(__CUDACC__)
    if (std::strcmp(arguments[i], "--seed") == 0) {
      emulation::settings.seed = std::stoull(arguments[++i]);
      continue;
    }
    if (std::strcmp(arguments[i], "--order") == 0) {
      const std::string order = arguments[++i];
      emulation::settings.order = order == "forward"   ? emulation::Order::forward
                                  : order == "reverse" ? emulation::Order::reverse
                                                       : emulation::Order::random;
      continue;
    }
    if (std::strcmp(arguments[i], "--list") == 0) {
      for (const char* name : names) std::puts(name);
      return 0;
    }
#endif
    for (int k = 0; k < static_cast<int>(Bug::count); ++k) {
      if (std::strcmp(arguments[i], names[k]) == 0) bug = static_cast<Bug>(k);
    }
  }
  try {
    check_block_sum(bug);
    check_power_steps(bug);
    check_cluster_sum(bug);
    check_warp_calls();
    check_tile<Half>();
    check_tile<BFloat16>();
#if !defined(__CUDACC__)
    check_rounding("half", emulation::narrow_half, emulation::widen_half);
    check_rounding("bfloat16", emulation::narrow_bfloat16, emulation::widen_bfloat16);
#endif
  } catch (const std::exception& error) {
    std::printf("found: %s\n", error.what());
    return 1;
  }
  return wrong ? 1 : 0;
}

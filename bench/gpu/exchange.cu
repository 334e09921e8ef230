// What the plan rests on (cuda/plan.cpp). How long blocks take to reach one another, which is what a recurrent step on
// many SMs waits for: a meeting of all blocks through flags and through the grid's own barrier, a push into the shared
// memory of a cluster's other blocks, and one SM and all of them reading the same data from L2. And what a step costs
// beside: from kernel to kernel on a stream and in a graph, what an SM reads of its shared memory, and its fused
// multiply-adds.
#include <cooperative_groups.h>

#include <algorithm>
#include <cstdio>

#include "../../tests/cuda/device.h"
#include "port.cuh"

using namespace fastrnn::cuda;

namespace {

constexpr int meetings = 2000;

__global__ void meet_by_flags(uint32_t* arrived) {
  for (uint32_t step = 1; step <= meetings; ++step) {
    __syncthreads();
    if (threadIdx.x == 0) {
      add_release(arrived, 1);
      while (load_acquire(arrived) < step * gridDim.x) {
      }
    }
    __syncthreads();
  }
}

// A flag a block, each on its own line; every block reads all of them, a thread each.
__global__ void meet_by_own_flags(uint32_t* flags) {
  constexpr int line = 32;
  for (uint32_t step = 1; step <= meetings; ++step) {
    __syncthreads();
    if (threadIdx.x == 0) store_release(flags + blockIdx.x * line, step);
    if (threadIdx.x < gridDim.x) {
      while (load_acquire(flags + threadIdx.x * line) < step) {
      }
    }
    __syncthreads();
  }
}

__global__ void meet_by_grid() {
  for (int step = 0; step < meetings; ++step) cooperative_groups::this_grid().sync();
}

// Each block writes 64 floats into every other block of its cluster, and all meet.
__global__ void push_in_cluster(float* sink) {
  float* own = reinterpret_cast<float*>(shared_memory());
  cluster_barrier();
  for (int step = 0; step < meetings; ++step) {
    float* to = own + (step % 2 * cluster_size() + cluster_rank()) * 64;
    for (unsigned i = threadIdx.x; i < 64 * cluster_size(); i += blockDim.x) in_block(to, i / 64)[i % 64] = 1;
    cluster_barrier();
  }
  if (threadIdx.x == 0) sink[blockIdx.x] = own[0];
}

__global__ void read_all(const float4* data, int n, int rounds, float* sink) {
  float sum = 0;
  for (int round = 0; round < rounds; ++round) {
    for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
      const float4 v = __ldcg(data + i);
      sum += v.x + v.y + v.z + v.w;
    }
  }
  if (sum == 1) sink[0] = sum;
}

__global__ void nothing() {}

// 16 bytes a thread, in each round of another place among a warp's; packs are whole warps'.
__global__ void read_shared(int packs, int rounds, float* sink) {
  auto* data = reinterpret_cast<float4*>(shared_memory());
  for (int i = static_cast<int>(threadIdx.x); i < packs; i += static_cast<int>(blockDim.x)) data[i] = {};
  __syncthreads();
  float sum = 0;
  for (int round = 0; round < rounds; ++round) {
    for (int i = static_cast<int>(threadIdx.x); i < packs; i += static_cast<int>(blockDim.x)) {
      const float4 v = data[i ^ (round % 32)];
      sum += v.x + v.y + v.z + v.w;
    }
  }
  if (sum == 1) sink[0] = sum;
}

constexpr int chains = 8;
__global__ void multiply_add(int rounds, float* sink) {
  float sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = static_cast<float>(threadIdx.x + i);
  for (int round = 0; round < rounds; ++round) {
    for (float& sum : sums) sum = fmaf(sum, 0.999f, 0.001f);
  }
  float sum = 0;
  for (const float one : sums) sum += one;
  if (sum == 1) sink[0] = sum;
}

// Milliseconds of the best of some launches.
template <class Launch> double best_ms(Launch once) {
  cudaEvent_t start, end;
  require(cudaEventCreate(&start));
  require(cudaEventCreate(&end));
  float best = 1e30f;
  for (int i = 0; i < 5; ++i) {
    require(cudaEventRecord(start, nullptr));
    once();
    require(cudaEventRecord(end, nullptr));
    require(cudaEventSynchronize(end));
    float ms = 0;
    require(cudaEventElapsedTime(&ms, start, end));
    best = std::min(best, ms);
  }
  return best;
}

void report(const char* what, double ms) { std::printf("%s: %.3f us\n", what, ms * 1e3 / meetings); }

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("there is no GPU here");
    return 1;
  }
  cudaDeviceProp device;
  require(cudaGetDeviceProperties(&device, 0));
  const auto blocks = static_cast<unsigned>(device.multiProcessorCount);
  std::printf("%s, %u SMs\n", device.name, blocks);
  const DeviceArray flags(blocks * 32 * sizeof(uint32_t)), sink(4096 * sizeof(float));
  auto* flag = static_cast<uint32_t*>(flags.data());
  auto* result = static_cast<float*>(sink.data());
  const auto clear = [&] { require(cudaMemsetAsync(flag, 0, blocks * 32 * sizeof(uint32_t), nullptr)); };
  report("all blocks meet at one flag", best_ms([&] {
           clear();
           launch({blocks, 256, 0, 1, true}, nullptr, meet_by_flags, flag);
         }));
  report("all blocks meet at a flag each", best_ms([&] {
           clear();
           launch({blocks, 256, 0, 1, true}, nullptr, meet_by_own_flags, flag);
         }));
  report("all blocks meet at grid.sync", best_ms([&] { launch({blocks, 256, 0, 1, true}, nullptr, meet_by_grid); }));
  const auto most = static_cast<unsigned>(current_device().cluster_blocks);
  for (unsigned cluster = 2; cluster <= most; cluster *= 2) {
    std::printf("cluster of %u, ", cluster);
    report("push and meet", best_ms([&] {
             launch({cluster, 256, 2 * cluster * 64 * sizeof(float), cluster}, nullptr, push_in_cluster, result);
           }));
  }
  for (const int kilobytes : {64, 512, 4096}) {
    const int n = kilobytes * 1024 / 16, rounds = 64 * 1024 / kilobytes;
    const DeviceArray data(static_cast<size_t>(n) * 16);
    const auto* from = static_cast<const float4*>(data.data());
    const double ms = best_ms([&] { launch({blocks, 1024}, nullptr, read_all, from, n, rounds, result); });
    std::printf("all SMs read the same %d KiB from L2: %.2f TB/s\n", kilobytes,
                static_cast<double>(blocks) * n * 16 * rounds / ms / 1e9);
    const double one_ms = best_ms([&] { launch({1, 1024}, nullptr, read_all, from, n, rounds, result); });
    std::printf("one SM reads %d KiB from L2: %.0f bytes a us\n", kilobytes,
                static_cast<double>(n) * 16 * rounds / one_ms / 1e3);
  }
  const auto launches = [](cudaStream_t stream) {
    for (int i = 0; i < meetings; ++i) launch({1, 32}, stream, nothing);
  };
  report("from kernel to kernel on a stream", best_ms([&] { launches(nullptr); }));
  cudaStream_t capturing = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  require(cudaStreamCreateWithFlags(&capturing, cudaStreamNonBlocking));
  require(cudaStreamBeginCapture(capturing, cudaStreamCaptureModeGlobal));
  launches(capturing);
  require(cudaStreamEndCapture(capturing, &graph));
  require(cudaGraphInstantiate(&ready, graph, 0));
  report("from kernel to kernel in a graph", best_ms([&] { require(cudaGraphLaunch(ready, nullptr)); }));
  constexpr int threads = 256, rounds = 2000, packs = 96 * 1024 / 16;
  const double shared_ms =
      best_ms([&] { launch({blocks, threads, packs * sizeof(float4)}, nullptr, read_shared, packs, rounds, result); });
  std::printf("an SM reads its shared memory: %.0f bytes a us\n",
              static_cast<double>(packs) * 16 * rounds / shared_ms / 1e3);
  constexpr int turns = 200000;
  const double fma_ms = best_ms([&] { launch({blocks, threads}, nullptr, multiply_add, turns, result); });
  std::printf("an SM multiplies and adds: %.0f fmas a us\n",
              static_cast<double>(threads) * chains * turns / fma_ms / 1e3);
}

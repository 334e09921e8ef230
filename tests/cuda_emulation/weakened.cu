// The kernels with W_hh on chip, with one of the calls that order their memory left out or weakened:
//
//     weakened [FILE LINE]      that of cuda/FILE at this line
//
// Each is there for a reason: without it ThreadSanitizer must find a race, or a result is NaN. Ends with 0 when
// nothing was found, which is right only where nothing was weakened.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../cuda/device.h"
#include "backward_stage.cuh"

namespace {

std::string weak_file;
int weak_line = 0;

bool weakened(const char* file, int line) {
  return line == weak_line && std::string(file).ends_with("cuda/" + weak_file);
}
void store_relaxed(uint32_t* p, uint32_t value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }

}  // namespace

#define WEAK weakened(__FILE__, __LINE__)
#define __syncthreads() (WEAK ? void() : (__syncthreads)())
#define __syncwarp() (WEAK ? void() : (__syncwarp)())
#define cluster_barrier() (WEAK ? void() : (cluster_barrier)())
#define wait_for_copies() (WEAK ? void() : (wait_for_copies)())
#define load_acquire(p) (WEAK ? load_relaxed(p) : (load_acquire)(p))
#define store_release(p, value) (WEAK ? store_relaxed(p, value) : (store_release)(p, value))
#include "layer.cuh"
#undef __syncthreads
#undef __syncwarp
#undef cluster_barrier
#undef wait_for_copies
#undef load_acquire
#undef store_release

using namespace fastrnn::cuda;

namespace {

constexpr int64_t T = 3, B = 2, I = 1, H = 34;

// Arrays of floats on the device, each of its own numbers.
class Arrays {
 public:
  float* take(int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) {
      state_ = state_ * 1664525u + 1013904223u;
      value = static_cast<float>(static_cast<int>(state_ >> 24) - 128) / 512;
    }
    const char* bytes = reinterpret_cast<const char*>(values.data());
    arrays_.push_back(std::make_unique<DeviceArray>(std::vector<char>(bytes, bytes + values.size() * sizeof(float))));
    return static_cast<float*>(arrays_.back()->data());
  }

 private:
  uint32_t state_ = 1;
  std::vector<std::unique_ptr<DeviceArray>> arrays_;
};

// Whether all of y and dh0 are finite: what was never written is NaN.
template <class Cell> bool run(const Partition& how) {
  const Kernels k = layer_kernels<Cell, float>();
  constexpr int64_t G = Cell::gates;
  Arrays arrays;
  Products multiply;
  SequenceGradient s{};
  s.dims = {T, B, I, H, H, false};
  s.how = how;
  s.x = arrays.take(T * B * I), s.x_stride = I;
  s.weights = {
      arrays.take(G * H * I), arrays.take(G * H * H), arrays.take(G * H), arrays.take(G * H), nullptr, nullptr};
  s.h0 = arrays.take(B * H), s.c0 = arrays.take(B * H);
  s.dy = {arrays.take(T * B * H), B * H, H, 1};
  s.dh_n = arrays.take(B * H), s.dc_n = arrays.take(B * H);
  float* results = arrays.take(T * B * H + B * H);
  s.y = {results, B * H, H, 1};
  s.dh0 = results + T * B * H, s.dc0 = arrays.take(B * H);
  s.h_n = arrays.take(B * H), s.c_n = arrays.take(B * H);
  s.saved = arrays.take(T * B * k.saved * H), s.cells = arrays.take(T * B * H);
  const DeviceArray forward(k.forward_workspace(s)), backward(k.backward_workspace(s));
  k.forward(s, static_cast<std::byte*>(forward.data()), nullptr, multiply);
  k.backward_steps(s, static_cast<std::byte*>(backward.data()), nullptr, multiply);
  return std::all_of(results, results + T * B * H + B * H, [](float value) { return std::isfinite(value); });
}

template <class Cell> void check() {
  constexpr int threads = 64;
  const Partition ways[] = {
      {Way::one_sm, 1, 8, 34, threads}, {Way::cluster, 2, 8, 17, threads}, {Way::grid, 2, 16, 17, threads}};
  for (const Partition& how : ways) {
    if (run<Cell>(how)) continue;
    std::printf("found: a result that is not finite, %s\n", name(how.way));
    std::exit(1);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 3) weak_file = arguments[1], weak_line = std::stoi(arguments[2]);
  try {
    check<Lstm>();
    check<GruResetBefore>();
  } catch (const std::exception& error) {
    std::printf("found: %s\n", error.what());
    return 1;
  }
}

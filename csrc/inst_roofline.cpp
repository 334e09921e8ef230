#include "simd.h"

namespace fastrnn::FASTRNN_ARCH {
namespace {

// Independent chains of multiply-adds in every register, nothing else: the most that this instruction set can do.
template <class T> int64_t multiply_adds(int64_t rounds) {
  constexpr int chains = vector_registers - 4;
  Vec<T> sums[chains];
  Vec<T> a = splat<T>(T(0.5)), b = splat<T>(T(0.25));
  asm volatile("" : "+m"(a), "+m"(b));  // values that the compiler does not know
  for (int i = 0; i < chains; ++i) sums[i] = splat<T>(static_cast<T>(i));
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int i = 0; i < chains; ++i) sums[i] = fma(sums[i], a, b);
  }
  Vec<T> sum = sums[0];
  for (int i = 1; i < chains; ++i) sum += sums[i];
  asm volatile("" : : "m"(sum));
  return rounds * chains * lanes<T>;
}

}  // namespace

extern int64_t (*const multiply_adds_float32)(int64_t) = multiply_adds<float>;
extern int64_t (*const multiply_adds_float64)(int64_t) = multiply_adds<double>;

}  // namespace fastrnn::FASTRNN_ARCH

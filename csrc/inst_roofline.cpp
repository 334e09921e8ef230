#include "product.h"

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

// A packed matrix with its bias, then the vector that it is multiplied with.
using Rows = GatePanel<4>;
template <class T> int64_t matrix_size(int64_t rows, int64_t depth) {
  const int64_t panels = ceil_div(rows, Rows::width<T>);
  return panels * (depth + 1) * Rows::width<T> + depth;
}

// Products of the matrix with the vector, one thread's share of the rows, back and forth as in a row's steps. Gives the
// bytes of the matrix that it has read.
template <class T>
int64_t multiply_vectors(const void* memory, int64_t rows, int64_t depth, int part, int parts, int64_t passes) {
  constexpr int64_t W = Rows::width<T>;
  const int64_t panels = ceil_div(rows, W);
  const T* matrix = static_cast<const T*>(memory);
  const T* bias = matrix + panels * depth * W;
  const Range mine = share(panels, part, parts);
  TileBuffer<T> result;
  for (int64_t pass = 0; pass < passes; ++pass) {
    multiply<Rows>(
        Product<T>{.depth = depth,
                   .a = bias + panels * W,
                   .a_stride = depth,
                   .rows = 1,
                   .panels = matrix,
                   .init = bias,
                   .range = mine,
                   .backwards = pass % 2 == 1},
        [&](int64_t, int64_t, int64_t, int64_t count) { return result.template target<Rows>(count); },
        [](auto&&...) {});
  }
  return passes * (mine.end - mine.begin) * depth * W * static_cast<int64_t>(sizeof(T));
}

}  // namespace

extern const Roofline roofline_float32 = {multiply_adds<float>, matrix_size<float>, multiply_vectors<float>};
extern const Roofline roofline_float64 = {multiply_adds<double>, matrix_size<double>, multiply_vectors<double>};

}  // namespace fastrnn::FASTRNN_ARCH

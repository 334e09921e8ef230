// Kernels over all time that know no cell: a layer's input as the products read it, its gradient as the caller has it,
// and sums over rows.
#pragma once

#include "rows.cuh"
// after what it is written in
#include "dropout.h"

namespace fastrnn::cuda {

template <class T> FASTRNN_FN Computed<T> dropped(const Dropout& dropout, uint64_t key, int64_t number, Computed<T> x) {
  return kept(dropout, key, number) ? x * static_cast<Computed<T>>(dropout.scale) : 0;
}

// x as (T B, I): dropout done, 0 past a row's length.
template <class T> struct InputRows {
  Rows rows;
  int64_t width;
  View<const T> x;
  Dropout dropout;
  T* to;
};
template <class T> __global__ void gather_input(InputRows<T> s) {
  const uint64_t key = dropout_key(s.dropout);
  for_each_element(s.rows.steps * s.rows.count, s.width, [&](int64_t i, int64_t j) {
    const int64_t t = i / s.rows.count, row = i % s.rows.count, number = i * s.width + j;
    T value{};
    if (t < s.rows.length(row)) {
      value = s.x.data[t * s.x.time + row * s.x.row + j * s.x.unit];
      if (s.dropout.active) value = narrow<T>(dropped<T>(s.dropout, key, number, widen(value)));
    }
    s.to[number] = value;
  });
}

// From (T B, I) to the caller's dx; 0 past a row's length.
template <class T> struct InputGradient {
  Rows rows;
  int64_t width;
  const T* from;
  View<T> dx;
};
template <class T> __global__ void scatter_gradient(InputGradient<T> s) {
  for_each_element(s.rows.steps * s.rows.count, s.width, [&](int64_t i, int64_t j) {
    const int64_t t = i / s.rows.count, row = i % s.rows.count;
    s.dx.data[t * s.dx.time + row * s.dx.row + j] = t < s.rows.length(row) ? s.from[i * s.width + j] : T{};
  });
}

template <class Int> struct Lengths {
  const Int* from;
  int64_t steps;
  int64_t* to;
};
template <class Int> __global__ void clamp_lengths(Lengths<Int> s, int64_t rows) {
  for_each_element(rows, 1, [&](int64_t row, int64_t) {
    const int64_t length = s.from[row];
    s.to[row] = length < 0 ? 0 : length > s.steps ? s.steps : length;
  });
}

// Sums over the rows of (count, stride), of `width` columns. A block has 32 columns; each of its warps sums every 32nd
// row, and the first warp their sums, always in the same order.
inline constexpr int sum_warps = 32;
template <class T> struct ColumnSums {
  int64_t count, stride, width;
  const T* from;
  T* to;
};
template <class T> __global__ void sum_columns(ColumnSums<T> s) {
  auto* sums = reinterpret_cast<Computed<T>*>(shared_memory());  // (32, 32)
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = int64_t{blockIdx.x} * 32 + lane;
  Computed<T> sum = 0;
  if (column < s.width) {
    for (int64_t i = warp; i < s.count; i += sum_warps) sum += widen(s.from[i * s.stride + column]);
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (warp > 0 || column >= s.width) return;
  for (int i = 1; i < sum_warps; ++i) sum += sums[i * 32 + static_cast<int>(lane)];
  s.to[column] = narrow<T>(sum);
}
template <class T> void launch_column_sums(const ColumnSums<T>& s, Stream stream) {
  const auto blocks = static_cast<unsigned>((s.width + 31) / 32);
  launch({blocks, 32 * sum_warps, 32 * sum_warps * sizeof(Computed<T>)}, stream, sum_columns<T>, s);
}

}  // namespace fastrnn::cuda

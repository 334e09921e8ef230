// The way for networks whose W_hh fits into the shared memory of one SM: a block keeps it there and takes some rows of
// the batch through all steps; no block needs another. The stages are those of the steps one by one.
#pragma once

#include "backward_stage.cuh"
#include "carver.h"
#include "forward_stage.cuh"

namespace fastrnn::cuda {

inline constexpr int64_t block_rows = 8;  // of the batch: the width of a tile of the tensor cores
inline constexpr unsigned block_threads = 256;
inline constexpr int64_t whole_tiles = 16;  // hidden_size must be a multiple of this
template <class T> constexpr bool one_sm_takes = sizeof(T) < 8;  // float64 would spill registers

// A row of k numbers in shared memory takes so many: threads of a warp that read neighbouring rows meet different
// banks.
template <class T> FASTRNN_HOST_DEVICE constexpr int64_t padded(int64_t k) { return sizeof(T) == 2 ? k + 8 : k + 1; }

// What a block multiplies its rows with, (m, k), kept in shared memory.
template <class T> struct BlockFactor {
  using A = Computed<T>;
  int64_t m, k;
  T* matrix;

  FASTRNN_HOST_DEVICE BlockFactor(int64_t m_, int64_t k_, Carver& memory)
      : m(m_), k(k_), matrix(memory.take<T>(m * padded<T>(k))) {}

  // From the device's memory, row-major as it is here, or transposed.
  FASTRNN_FN void load(const T* from, bool transposed) const {
    for (int64_t i = threadIdx.x; i < m * k; i += blockDim.x) {
      const int64_t row = transposed ? i % m : i / k, column = transposed ? i / m : i % k;
      matrix[row * padded<T>(k) + column] = from[i];
    }
  }

  // to (8, m) = vectors (8, k) times the matrix transposed; a warp each 16 rows of the matrix, or a thread each row.
  FASTRNN_FN void multiply(const T* vectors, int64_t vector_stride, A* to) const {
    if constexpr (sizeof(T) == 2) {
      const unsigned lane = threadIdx.x % 32, group = lane / 4, t = lane % 4;
      for (int64_t first = threadIdx.x / 32 * 16; first < m; first += blockDim.x / 32 * 16) {
        float sums[4] = {};
        const T* row = matrix + (first + group) * padded<T>(k) + 2 * t;
        const T* below = row + 8 * padded<T>(k);
        const T* vector = vectors + group * vector_stride + 2 * t;
        for (int64_t i = 0; i < k; i += 16) {
          const uint32_t a[4] = {pair(row + i), pair(below + i), pair(row + i + 8), pair(below + i + 8)};
          const uint32_t b[2] = {pair(vector + i), pair(vector + i + 8)};
          multiply_16x8x16(T{}, sums, a, b);
        }
        for (unsigned i = 0; i < 4; ++i) to[(2 * t + i % 2) * m + first + group + i / 2 * 8] = sums[i];
      }
    } else {
      for (int64_t j = threadIdx.x; j < m; j += blockDim.x) {
        A sums[block_rows] = {};
        for (int64_t i = 0; i < k; ++i) {
          const A w = matrix[j * padded<T>(k) + i];
          for (int r = 0; r < block_rows; ++r) sums[r] = fma(w, vectors[r * vector_stride + i], sums[r]);
        }
        for (int r = 0; r < block_rows; ++r) to[r * m + j] = sums[r];
      }
    }
  }

 private:
  static FASTRNN_FN uint32_t pair(const T* p) { return *reinterpret_cast<const uint32_t*>(p); }
};

FASTRNN_FN int64_t first_row() { return int64_t{blockIdx.x} * block_rows; }

// f(row, column) for the rows of this block.
template <class F> FASTRNN_FN void for_each_of_block(int64_t rows, int64_t width, F f) {
  const int64_t first = first_row();
  const int64_t count = rows - first < block_rows ? rows - first : block_rows;
  for (int64_t i = threadIdx.x; i < count * width; i += blockDim.x) f(first + i / width, i % width);
}
template <class Stage, class Parameters> FASTRNN_FN void stage_of_block(const Parameters& s, int64_t width) {
  for_each_of_block(s.rows.count, width, [&](int64_t row, int64_t unit) { Stage::run(s, row, unit); });
}
template <class T> FASTRNN_FN void copy_of_block(int64_t rows, int64_t width, const Tile<T>& from, const Tile<T>& to) {
  for_each_of_block(rows, width, [&](int64_t row, int64_t unit) { to.at(row, unit) = from.at(row, unit); });
}
// A block of fewer rows multiplies zeros in place of the others.
template <class T> FASTRNN_FN void clear_of_block(T* vectors, int64_t n) {
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) vectors[i] = T{};
}

template <class Cell, class T> struct OneSmForward {
  using A = Computed<T>;
  static constexpr int64_t step_gates = Cell::gates - Cell::reset_first;
  static constexpr int64_t second = Cell::reset_first;
  BlockFactor<T> gates, last;  // the second one for reset_first
  T *h, *between;
  A *p, *p2, *c, *kept;

  FASTRNN_HOST_DEVICE OneSmForward(int64_t hidden, Carver& memory)
      : gates(step_gates * hidden, hidden, memory), last(second * hidden, hidden, memory),
        h(memory.take<T>(block_rows * padded<T>(hidden))),
        between(memory.take<T>(second * block_rows * padded<T>(hidden))),
        p(memory.take<A>(block_rows * step_gates * hidden)), p2(memory.take<A>(second * block_rows * hidden)),
        c(memory.take<A>(Cell::has_cell * block_rows * hidden)),
        kept(memory.take<A>(second * block_rows * Cell::gates * hidden)) {}
};

// Steps from s.step up to `end`, from and to the state in s.h and s.c.
template <class Cell, class T>
__global__ void __launch_bounds__(block_threads) one_sm_forward(ForwardStep<T> s, int64_t end, const T* w_hh) {
  const int64_t rows = s.rows.count, H = s.hidden;
  Carver carver(shared_memory(), 16);
  const OneSmForward<Cell, T> own(H, carver);
  const Tile<T> h = s.h;
  const Tile<Computed<T>> c = s.c;
  s.h = {own.h, padded<T>(H), first_row()}, s.between = {own.between, padded<T>(H), first_row()};
  s.p = {own.p, own.gates.m, first_row()}, s.p2 = {own.p2, H, first_row()};
  s.c = {own.c, H, first_row()}, s.kept = {own.kept, Cell::gates * H, first_row()};
  own.gates.load(w_hh, false);
  clear_of_block(own.h, block_rows * padded<T>(H));
  if constexpr (Cell::reset_first) {
    own.last.load(w_hh + own.gates.m * H, false);
    clear_of_block(own.between, block_rows * padded<T>(H));
  }
  __syncthreads();
  copy_of_block(rows, H, h, s.h);
  if constexpr (Cell::has_cell) copy_of_block(rows, H, c, s.c);
  for (; s.step < end; ++s.step) {
    __syncthreads();
    own.gates.multiply(own.h, padded<T>(H), own.p);
    __syncthreads();
    if constexpr (Cell::reset_first) {
      stage_of_block<ForwardReset<Cell>>(s, H);
      __syncthreads();
      own.last.multiply(own.between, padded<T>(H), own.p2);
      __syncthreads();
      stage_of_block<ForwardMix<Cell>>(s, H);
    } else {
      stage_of_block<ForwardGates<Cell, false>>(s, H);
    }
  }
  __syncthreads();
  copy_of_block(rows, H, s.h, h);
  if constexpr (Cell::has_cell) copy_of_block(rows, H, s.c, c);
}

template <class Cell, class T> struct OneSmBackward {
  using A = Computed<T>;
  static constexpr int64_t step_gates = Cell::gates - Cell::reset_first;
  static constexpr int64_t second = Cell::reset_first;
  BlockFactor<T> gates, last;  // transposed
  T* slots;
  A *product, *carried, *dc, *d_hidden;

  FASTRNN_HOST_DEVICE OneSmBackward(int64_t hidden, Carver& memory)
      : gates(hidden, step_gates * hidden, memory), last(second * hidden, hidden, memory),
        slots(memory.take<T>(block_rows * padded<T>(Cell::slots * hidden))),
        product(memory.take<A>(block_rows * hidden)), carried(memory.take<A>(block_rows * hidden)),
        dc(memory.take<A>(Cell::has_cell * block_rows * hidden)),
        d_hidden(memory.take<A>(second * block_rows * hidden)) {}
};

// All steps, from the last to the first, dh0 and dc0.
template <class Cell, class T>
__global__ void __launch_bounds__(block_threads) one_sm_backward(BackwardStep<T> s, const T* w_hh) {
  const int64_t H = s.hidden, stride = padded<T>(Cell::slots * H);
  Carver carver(shared_memory(), 16);
  const OneSmBackward<Cell, T> own(H, carver);
  s.product = {own.product, H, first_row()}, s.carried = {own.carried, H, first_row()}, s.dc = {own.dc, H, first_row()};
  s.step_slots = {own.slots, stride, first_row()}, s.d_hidden = {own.d_hidden, H, first_row()};
  own.gates.load(w_hh, true);
  if constexpr (Cell::reset_first) own.last.load(w_hh + own.gates.k * H, true);
  clear_of_block(own.slots, block_rows * stride);
  stage_of_block<BackwardBegin<Cell>>(s, H);
  for (s.step = s.rows.steps; s.step-- > 0; s.has_product = true) {
    __syncthreads();
    if constexpr (Cell::reset_first) {
      stage_of_block<BackwardMix<Cell>>(s, H);
      __syncthreads();
      own.last.multiply(own.slots + own.gates.k, stride, own.d_hidden);
      __syncthreads();
      stage_of_block<BackwardReset<Cell>>(s, H);
    } else {
      stage_of_block<BackwardGates<Cell, false>>(s, H);
    }
    __syncthreads();
    own.gates.multiply(own.slots, stride, own.product);
  }
  __syncthreads();
  stage_of_block<BackwardFinish<Cell>>(s, H);
}

// Bytes of shared memory that a block needs.
template <class Block> size_t one_sm_bytes(int64_t hidden) {
  Carver memory(nullptr, 16);
  static_cast<void>(Block(hidden, memory));
  return memory.used();
}

inline Shape one_sm_shape(int64_t rows, size_t shared_bytes) {
  return {static_cast<unsigned>((rows + block_rows - 1) / block_rows), block_threads, shared_bytes};
}

}  // namespace fastrnn::cuda

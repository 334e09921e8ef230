// A matrix that a block keeps in its shared memory for all steps, and its product with the vectors of a step.
#pragma once

#include "carver.h"
#include "values.cuh"

namespace fastrnn::cuda {

inline constexpr int tile_rows = 8;  // vectors that are multiplied at once: the width of a tile of the tensor cores
inline constexpr int chunk = 32;     // numbers of a vector; warps share out whole chunks
template <class T> constexpr int group_rows = sizeof(T) == 2 ? 16 : 32;  // of the matrix: a tile's, or one a thread
template <class T> constexpr int groups_at_once = sizeof(T) == 2 ? 4 : sizeof(T) == 4 ? 2 : 1;  // in registers

FASTRNN_HOST_DEVICE constexpr int whole(int64_t n, int unit) { return static_cast<int>((n + unit - 1) / unit) * unit; }

// How far apart vectors of k numbers, whole chunks, lie in shared memory: threads that read 16 bytes each of
// neighbouring ones meet different banks.
template <class T> FASTRNN_HOST_DEVICE constexpr int spaced(int k) {
  if (sizeof(T) == 2) return k / chunk % 2 ? k : k + chunk;
  return k + 16 / static_cast<int>(sizeof(T));
}

// What is read or written at once.
template <class T> struct alignas(16) Pack {
  T at[16 / sizeof(T)];
};
template <class T> FASTRNN_FN Pack<T> pack(const T* from) { return *reinterpret_cast<const Pack<T>*>(from); }

// Products of the vectors with each row of a matrix. Warps that had a part each of the columns have left a sum each; it
// takes them together in their order.
template <class A> struct Sums {
  A* data;  // (parts, vectors, stride)
  int parts, vectors, stride;

  FASTRNN_FN A at(int vector, int row) const {
    A sum = data[vector * stride + row];
    for (int part = 1; part < parts; ++part) sum += data[(part * vectors + vector) * stride + row];
    return sum;
  }
};

template <class T> struct ResidentMatrix {
  using A = Computed<T>;
  int rows, columns;  // whole groups and chunks: zeros where the matrix has ended
  int stride;
  bool tf32;  // floats are rounded, for the tensor cores
  T* data;

  FASTRNN_HOST_DEVICE ResidentMatrix(int64_t rows_, int64_t columns_, bool tf32_, Carver& memory)
      : rows(whole(rows_, group_rows<T>)), columns(whole(columns_, chunk)), stride(spaced<T>(columns)), tf32(tf32_),
        data(memory.take<T>(int64_t{rows} * stride)) {}

  // For a block of so many threads. `memory` gives (parts, vectors, stride).
  FASTRNN_HOST_DEVICE Sums<A> sums(int threads, int vectors) const {
    const int sets = whole(rows, group_rows<T> * groups_at_once<T>) / (group_rows<T> * groups_at_once<T>);
    const int wanted = sets ? threads / 32 / sets : 1, most = columns / chunk;
    return {nullptr, wanted < 1 ? 1 : wanted < most ? wanted : most, vectors, rows + 4};
  }

  // element(row, column) of the matrix, asked for so that neighbouring threads have neighbouring columns, or rows.
  template <class F> FASTRNN_FN void load(bool by_rows, F element) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * columns; i += static_cast<int>(blockDim.x)) {
      const int row = by_rows ? i % rows : i / columns, column = by_rows ? i / rows : i % columns;
      const T value = element(row, column);
      if constexpr (std::is_same_v<T, float>) {
        data[row * stride + column] = tf32 ? round_to_tf32(value) : value;
      } else {
        data[row * stride + column] = value;
      }
    }
  }

  // tile(i) are the vectors from the i-th on, which lie as the rows of the matrix do. Warps share out rows and columns.
  template <class Tile> FASTRNN_FN void multiply(Tile tile, const Sums<A>& to) const {
    for (int vector = 0; vector < to.vectors; vector += tile_rows) multiply(tile(vector), vector, to);
  }

 private:
  static constexpr int set = group_rows<T> * groups_at_once<T>;  // rows that a warp multiplies at once

  FASTRNN_FN void multiply(const T* tile, int vector, const Sums<A>& to) const {
    const int warps = static_cast<int>(blockDim.x / 32), warp = static_cast<int>(threadIdx.x / 32);
    const int teams = warps / to.parts, part = warp % to.parts, chunks = columns / chunk;
    if (warp >= teams * to.parts) return;
    const int first = chunks * part / to.parts * chunk, last = chunks * (part + 1) / to.parts * chunk;
    for (int row = warp / to.parts * set; row < rows; row += teams * set) {
      A* sums = to.data + (part * to.vectors + vector) * to.stride + row;
      if constexpr (sizeof(T) == 2) {
        by_tensor_cores(row, tile, first, last, sums, to.stride);
      } else if constexpr (std::is_same_v<T, float>) {
        if (tf32) {
          by_tensor_cores(row, tile, first, last, sums, to.stride);
        } else {
          by_threads(row, tile, first, last, sums, to.stride);
        }
      } else {
        by_threads(row, tile, first, last, sums, to.stride);
      }
    }
  }

  // A thread reads 8 neighbouring numbers of a vector and of two rows, and hands them to the tensor cores as what a
  // tile wants from several places: sums over all columns do not mind which is which, as long as both factors agree.
  FASTRNN_FN void by_tensor_cores(int row, const T* vectors, int first, int last, float* to, int to_stride) const {
    constexpr int tile_height = 16, tiles = set / tile_height;
    const int lane = static_cast<int>(threadIdx.x % 32), group = lane / 4, t = lane % 4;
    const T* own_vector = vectors + group * stride + 8 * t;
    const T* own_row = data + (row + group) * stride + 8 * t;
    float sums[tiles][4] = {};
    for (int k = first; k < last; k += chunk) {
      uint32_t b[words_of_8];
      words(own_vector + k, b);
      if constexpr (std::is_same_v<T, float>) {
        for (uint32_t& word : b) word = __float_as_uint(round_to_tf32(__uint_as_float(word)));
      }
      for (int i = 0; i < tiles; ++i) {
        if (row + i * tile_height >= rows) continue;
        uint32_t a[words_of_8], below[words_of_8];
        words(own_row + i * tile_height * stride + k, a);
        words(own_row + (i * tile_height + 8) * stride + k, below);
        for (int w = 0; w < words_of_8; w += 2) {
          const uint32_t a_tile[4] = {a[w], below[w], a[w + 1], below[w + 1]}, b_tile[2] = {b[w], b[w + 1]};
          if constexpr (sizeof(T) == 2) {
            multiply_16x8x16(T{}, sums[i], a_tile, b_tile);
          } else {
            multiply_16x8x8(sums[i], a_tile, b_tile);
          }
        }
      }
    }
    for (int i = 0; i < tiles; ++i) {
      if (row + i * tile_height >= rows) continue;
      for (int j = 0; j < 4; ++j) {
        to[(2 * t + j % 2) * to_stride + i * tile_height + group + j / 2 * 8] = sums[i][j];
      }
    }
  }

  FASTRNN_FN void by_threads(int row, const T* vectors, int first, int last, A* to, int to_stride) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    constexpr int n = 16 / sizeof(T);
    A sums[groups_at_once<T>][tile_rows] = {};
    for (int k = first; k < last; k += n) {
      Pack<T> v[tile_rows];
      for (int r = 0; r < tile_rows; ++r) v[r] = pack(vectors + r * stride + k);
      for (int i = 0; i < groups_at_once<T>; ++i) {
        if (row + i * group_rows<T> >= rows) continue;
        const Pack<T> w = pack(data + (row + i * group_rows<T> + lane) * stride + k);
        for (int r = 0; r < tile_rows; ++r) {
          for (int j = 0; j < n; ++j) sums[i][r] = fma(w.at[j], v[r].at[j], sums[i][r]);
        }
      }
    }
    for (int i = 0; i < groups_at_once<T>; ++i) {
      if (row + i * group_rows<T> >= rows) continue;
      for (int r = 0; r < tile_rows; ++r) to[r * to_stride + i * group_rows<T> + lane] = sums[i][r];
    }
  }

  static constexpr int words_of_8 = 8 * static_cast<int>(sizeof(T)) / 4;
  static FASTRNN_FN void words(const T* from, uint32_t (&to)[words_of_8]) {
    for (int i = 0; i < words_of_8; i += 4) {
      const Pack<T> some = pack(from + i * 4 / static_cast<int>(sizeof(T)));
      memcpy(to + i, &some, sizeof(some));
    }
  }
};

}  // namespace fastrnn::cuda

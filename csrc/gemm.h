// The one micro-kernel that every product goes through.
//
// C = init + A B for a tile of M rows and P slices of N vectors. Each element of C is one chain of fused
// multiply-adds over k in ascending order: how rows and slices are grouped into tiles, shared between threads or cut
// into chunks of k cannot change a bit of the result.
#pragma once

#include "simd.h"

namespace fastrnn::FASTRNN_ARCH {

// How A lies in memory. by_k: A[m, k] = a[m * stride + k], the rows of a matrix; every row of C starts from the same
// row of N * P vectors (a bias). by_row: A[m, k] = a[k * stride + m], the columns of one, for products over time; each
// row of C starts from its own (the sum so far).
enum class Order { by_k, by_row };

// What a tile fetches on its way for those after it, a little at each k: all at once it would keep the tile's own reads
// waiting. A run is a vector for each k; places are from anywhere, and spread over the k.
enum class Ahead { nothing, run, places };
// Where a k takes long enough to have room for it: with shorter vectors it costs what it gains.
inline constexpr bool fetches_on_the_way = vector_bytes == 64;

// How many k a round of a tile's loop does. Where vectors are short, a core that shares its front end with another
// thread is not given instructions fast enough for each k to have the loop's own beside it. Few rows wait for their
// weights, and leave too few registers.
template <int M, int P> inline constexpr int k_a_round = vector_bytes == 32 && M > 2 && P == 1 ? 4 : 1;

template <class T> struct Tile {
  int64_t depth;            // k runs over 0 ... depth - 1
  const T* a;
  int64_t a_stride;         // elements
  const T* b;               // slice: depth rows of N vectors
  int64_t b_slice = 0;      // elements from one slice to the next
  const T* init;
  int64_t init_row = 0;     // by_row: elements from one row of it to the next
  T* c;
  int64_t c_row;            // elements from one row of C to the next
  int64_t c_slice = 0;      // elements from one slice's columns to the next slice's
  const T* run = nullptr;  // Ahead::run: from here on
  const void* const* places = nullptr;  // Ahead::places: these,
  int64_t place_count = 0;              // 1 ... depth of them
};

// Rows of a tile that fill the registers for slices of N vectors, leaving room for one row of B and one element of A.
template <int N> inline constexpr int tile_rows = vector_registers == 32 ? 24 / N : 12 / N;

// Slices of a tile when there are few rows: enough independent chains to hide the latency of a multiply-add.
template <int M, int N>
inline constexpr int tile_slices = M == 1                   ? (vector_registers == 32 ? 12 / N : (8 + N - 1) / N)
                                   : vector_registers == 16 ? (M <= 3 ? 12 / (M * N) : 1)
                                   : M == 2 && N <= 3       ? 2
                                                            : 1;

// Of one row when slices are short and so lie near: where four vectors fill a cache's line each, chains enough to read
// them as fast as a second-level cache gives them, and no more, so that the pointwise stage of one tile runs while the
// next is read.
template <int N> inline constexpr int short_slices = N == 4 && vector_bytes == 64 ? 1 : tile_slices<1, N>;
inline constexpr int64_t short_slice_bytes = 32 << 10;

// Rows of a tile of two slices, which is for rows so long that a full tile's of one slice fill half of the first cache.
template <int N> inline constexpr int pair_rows = tile_rows<2 * N>;
inline constexpr int64_t long_rows_bytes = 16 << 10;

template <class T, int M, int N, int P, Order order, Ahead ahead = Ahead::nothing>
__attribute__((noinline)) void tile(const Tile<T>& args) {
  constexpr int L = lanes<T>;
  Vec<T> acc[M][P][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n)
        acc[m][p][n] = load(args.init + (order == Order::by_row ? m * args.init_row : 0) + (p * N + n) * L);

  const int64_t stride = args.a_stride, slice = args.b_slice;
  const T* a = args.a;
  const T* b = args.b;
  // Three rows a base pointer: addresses then need few registers (base, base + stride, base + 2 stride).
  const T* a3 = a + 3 * stride;
  const T* a6 = a + 6 * stride;
  const T* a9 = a + 9 * stride;
  const T* a12 = a + 12 * stride;
  const T* a15 = a + 15 * stride;
  uint64_t place = 0, places_per_k = 0;  // in units of 2^-32
  if (ahead == Ahead::places) {
    places_per_k = (static_cast<uint64_t>(args.place_count) << 32) / static_cast<uint64_t>(args.depth);
  }
  constexpr int round = k_a_round<M, P>;
  // k + u, where the pointers are at k.
  const auto multiply_at = [&](int64_t k, int u) FASTRNN_LAMBDA {
    const T* column = a + u * stride;
    Vec<T> row[P][N];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) row[p][n] = load(b + p * slice + (u * N + n) * L);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const T* base = m < 3 ? a : m < 6 ? a3 : m < 9 ? a6 : m < 12 ? a9 : m < 15 ? a12 : a15;
      const Vec<T> value = splat<T>(order == Order::by_row ? column[m] : base[(m % 3) * stride + u]);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) add_product<T, (round > 1)>(acc[m][p][n], value, row[p][n]);
    }
    if (ahead == Ahead::run) fetch_for_later(args.run + (k + u) * L);
    if (ahead == Ahead::places) {
      fetch(args.places[place >> 32]);
      place += places_per_k;
    }
    if (order == Order::by_row) fetch_for_later(column + 2 * M - 1);  // the next rows' end, often in another line
  };
  const auto advance = [&](int n) FASTRNN_LAMBDA {
    b += n * N * L;
    if (order == Order::by_row) {
      a += n * stride;
    } else {
      a += n, a3 += n, a6 += n, a9 += n, a12 += n, a15 += n;
    }
  };
  int64_t k = 0;
  for (; k + round <= args.depth; k += round) {
#pragma GCC unroll 4
    for (int u = 0; u < round; ++u) multiply_at(k, u);
    advance(round);
  }
  if constexpr (round > 1) {
    for (; k < args.depth; ++k) {
      multiply_at(k, 0);
      advance(1);
    }
  }

#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) store(args.c + m * args.c_row + p * args.c_slice + n * L, acc[m][p][n]);
}

}  // namespace fastrnn::FASTRNN_ARCH

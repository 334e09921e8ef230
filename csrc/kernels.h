// What the network (stack.cpp) hands to the kernels of one layer and direction (sequence.h): plain data, so that
// nothing here has code that differs between instruction sets.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "fastrnn.h"

namespace fastrnn {

class Barrier;

template <class T> struct View {
  T* data;
  int64_t time, row, unit;
};

// Sizes of one layer and direction.
struct Dims {
  int64_t steps, rows, input, hidden, output;  // T, B, I, H, P
  bool projected;                              // then output is the size of the projection
};

// The batch, its rows sorted by length so that the rows still alive at any step are the first ones. All null where
// every length is T and the rows stay in their own order.
struct Batch {
  const int64_t* order;   // the caller's row behind each sorted row
  const int64_t* length;  // of each sorted row, descending
  const int64_t* alive;   // (T + 1): sorted rows whose length exceeds the step
  const int64_t* begin;   // (T + 1): where arrays are packed, the rows before each step's; else null
};

// The threads of one direction form `teams` teams of `team_size`. A team takes every teams-th sorted row and needs no
// other team until the products over time; inside a team members share out the hidden units and meet at each step.
struct Member {
  int team, teams;
  int rank, team_size;
  int direction_rank, direction_size;  // among all threads of this direction
  Barrier* team_barrier;
  Barrier* direction_barrier;
};

// Where weights come from when a step reads them again.
enum class Level { l2, l3, memory };

struct ChunkRows {
  int64_t forward, backward;  // rows (steps x batch) of the products over time that are done at once
};

// The part of a layer's input that is dropped, by counter: element (t, b, j) has the number (t B + b) width + j.
struct Dropout {
  bool active;
  uint64_t seed, layer;
  uint32_t threshold;  // of 2^24
  int64_t width;
  double scale;
  const uint64_t* seed_at;  // where the seed lies, in place of `seed`; on CUDA alone
};
inline Dropout layer_dropout(const Spec& spec, int64_t layer, uint64_t seed, bool training) {
  if (!training || layer == 0 || spec.dropout <= 0) return {};
  return {true,
          seed,
          static_cast<uint64_t>(layer),
          static_cast<uint32_t>(std::floor(spec.dropout * 0x1p24)),
          spec.layer_input(layer),
          1 / (1 - spec.dropout),
          nullptr};
}

template <class T> struct Sequence {
  Dims dims;
  const Options* options;  // of kernels that have them, else null
  Batch batch;
  bool reverse;
  ChunkRows chunk;
  Level weights;
  Dropout dropout;
  View<const T> x;
  View<T> y;
  bool in_place;  // y is x
  const T *h0, *c0;
  T *h_n, *c_n;
  T *saved, *cells;  // tape, or null
  const T* pack;
  const T *w_ih, *w_hh;  // not null: not in the pack; each is needed for one product, which packs it into `panels`
  T* panels;             // of the pack's size
  T* scratch;
};

template <class T> struct SequenceGradient {
  Dims dims;
  const Options* options;
  Batch batch;
  bool reverse;
  ChunkRows chunk;
  Level weights;
  Dropout dropout;
  View<const T> x, y, dy;
  const T *h0, *c0, *dh_n, *dc_n;
  const T *saved, *cells;
  View<T> dx;
  T *dh0, *dc0;
  T *w_ih, *w_hh, *b_ih, *b_hh, *w_hr, *w_peephole;
  const T* pack;
  T* scratch;
};

template <class T> struct Weights {
  const T *w_ih, *w_hh, *b_ih, *b_hh, *w_hr, *w_peephole;
};

// One cell, value type and instruction set. Sizes are in elements; packing is shared out between `parts` callers.
template <class T> struct Kernels {
  int gates, saved, functions;
  bool has_cell, reset_first;
  int lanes;
  int64_t (*forward_pack_size)(const Dims&);
  int64_t (*backward_pack_size)(const Dims&);
  void (*forward_pack)(const Dims&, const Weights<T>&, T* pack, int part, int parts);
  void (*backward_pack)(const Dims&, const Weights<T>&, T* pack, int part, int parts);
  int64_t (*forward_scratch)(const Dims&, const ChunkRows&, int teams);
  int64_t (*backward_scratch)(const Dims&, const ChunkRows&, int direction_size);
  void (*forward)(const Sequence<T>&, const Member&);
  void (*backward)(const SequenceGradient<T>&, const Member&);
};

template <class T> const Kernels<T>& kernels(Cell, bool with_options, Isa);

// What bounds the kernels, alone.
struct Roofline {
  int64_t (*multiply_adds)(int64_t rounds);  // gives how many that was
  int64_t (*matrix_size)(int64_t rows, int64_t depth);  // in values
  int64_t (*multiply_vectors)(const void* matrix, int64_t rows, int64_t depth, int part, int parts, int64_t passes);
};
const Roofline& roofline(DType, Isa);

}  // namespace fastrnn

// Weights as the micro-kernel reads them: panels of N vectors, all of a panel's k one after the other.
#pragma once

#include "cells/state.h"
#include "gemm.h"
#include "kernels.h"

namespace fastrnn::FASTRNN_ARCH {

FASTRNN_FN int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
FASTRNN_FN int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
FASTRNN_FN int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

struct Range {
  int64_t begin, end;
};
// The part of 0 ... count - 1 that falls to one of `parts` threads.
FASTRNN_FN Range share(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

// A panel holds the same `Units` vectors of hidden units for each of `Gates` gates, so that a unit's gates come out of
// the product side by side. Either several gates, or several vectors of units. Its weights lie in slices of as many
// vectors as a tile multiplies at once, all of a slice's k one after the other: with few registers, a tile of six rows
// and two vectors reads half the weights of one of three rows and four.
template <int Gates, int Units> struct Panel {
  static_assert(Gates == 1 || Units == 1);
  static constexpr int vectors = Gates * Units;
  static constexpr int gates = Gates, units = Units;
  static constexpr int slice = vector_registers == 16 && vectors == 4 ? 2 : vectors, slices = vectors / slice;
  template <class T> static constexpr int width = vectors * lanes<T>;  // elements of a row of the panel
  template <class T> static FASTRNN_FN int64_t count(int64_t n) { return ceil_div(n, Units * lanes<T>); }
  template <class T> static FASTRNN_FN int64_t size(int64_t n, int64_t depth) { return count<T>(n) * depth * width<T>; }
};
using PlainPanel = Panel<1, 2>;
template <int Gates> using GatePanel = Panel<Gates, Gates == 1 ? 2 : 1>;

// The first n elements of `live` rows, one after another, transposed.
template <class T>
FASTRNN_FN void load_block(const T* rows, int64_t stride, int64_t live, int n, Vec<T> (&block)[lanes<T>]) {
  for (int64_t lane = 0; lane < lanes<T>; ++lane) {
    block[lane] = lane >= live    ? Vec<T>{}
                  : n == lanes<T> ? load(rows + lane * stride)
                                  : load_first(rows + lane * stride, n);
  }
  transpose<T>(block);
}

// Rows of `source` become columns of a panel: its column (gate, unit) is source row gate * H + unit, its k the source
// column.
template <class P, class T>
void pack_panel(const T* source, int64_t units, int64_t depth, int64_t panel, T* out) {
  constexpr int L = lanes<T>;
  constexpr int64_t width = P::slice * L;
  for (int v = 0; v < P::vectors; ++v) {
    const int64_t unit = (panel * P::units + (P::gates == 1 ? v : 0)) * L;
    const T* rows = source + ((P::gates == 1 ? 0 : v) * units + unit) * depth;
    const int64_t live = min(L, units - unit);
    T* to = out + v / P::slice * depth * width + v % P::slice * L;
    for (int64_t k = 0; k < depth; k += L) {
      const int n = static_cast<int>(min(L, depth - k));
      Vec<T> block[L];
      load_block(rows + k, depth, live, n, block);
      for (int j = 0; j < n; ++j) store(to + (k + j) * width, block[j]);
    }
  }
}
// The product of one row with a panel of weights that no other needs, without packing it: c = init + a W^T, its sums in
// the order of a tile's.
template <class P, class T>
void multiply_row(const T* source, int64_t units, int64_t depth, int64_t panel, const T* a, const T* init, T* c) {
  constexpr int L = lanes<T>;
  for (int v = 0; v < P::vectors; ++v) {
    const int64_t unit = (panel * P::units + (P::gates == 1 ? v : 0)) * L;
    const T* rows = source + ((P::gates == 1 ? 0 : v) * units + unit) * depth;
    Vec<T> sum = load(init + v * L);
    for (int64_t k = 0; k < depth; k += L) {
      const int n = static_cast<int>(min(L, depth - k));
      Vec<T> block[L];
      load_block(rows + k, depth, min(L, units - unit), n, block);
      for (int j = 0; j < n; ++j) sum = fma(splat<T>(a[k + j]), block[j], sum);
    }
    store(c + v * L, sum);
  }
}
template <class P, class T>
void pack_rows(const T* source, int64_t units, int64_t depth, T* out, Range panels) {
  for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
    pack_panel<P>(source, units, depth, panel, out + panel * depth * P::template width<T>);
  }
}

// Rows of `source` stay the k of the panels, its columns their columns. Few rows at a time, each read from end to end.
template <class T>
void pack_columns(const T* source, int64_t depth, int64_t columns, T* out, int64_t out_depth, Range panels) {
  constexpr int L = lanes<T>, W = PlainPanel::width<T>;
  constexpr int64_t block = 32;
  for (int64_t k0 = 0; k0 < depth; k0 += block) {
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const int64_t first = panel * W, live = min(W, columns - first);
      for (int64_t k = k0; k < min(depth, k0 + block); ++k) {
        const T* from = source + k * columns + first;
        T* to = out + (panel * out_depth + k) * W;
        if (live == W) {
          for (int j = 0; j < W; j += L) store(to + j, load(from + j));
        } else {
          for (int64_t j = 0; j < W; ++j) to[j] = j < live ? from[j] : T(0);
        }
      }
    }
  }
}

// One row of bias a panel; either source may be null.
template <class P, class T> void pack_bias(const T* a, const T* b, int64_t units, int first_gate, int gate_of_b,
                                           T* out) {
  constexpr int L = lanes<T>;
  for (int64_t panel = 0; panel < P::template count<T>(units); ++panel) {
    for (int v = 0; v < P::vectors; ++v) {
      const int gate = P::gates == 1 ? 0 : v;
      const int64_t unit = (panel * P::units + (P::gates == 1 ? v : 0)) * L;
      for (int lane = 0; lane < L; ++lane) {
        const int64_t row = gate * units + unit + lane;
        T sum = 0;
        if (unit + lane < units) {
          if (a && gate >= first_gate) sum += a[row];
          if (b && gate < gate_of_b) sum += b[row];
        }
        out[(panel * P::vectors + v) * L + lane] = sum;
      }
    }
  }
}

// Weights of peepholes, three rows of whole vectors.
template <class Cell, class T> FASTRNN_FN int64_t peephole_stride(const Dims& d) {
  return Cell::has_cell && Cell::Functions::chosen ? ceil_div(d.hidden, lanes<T>) * lanes<T> : 0;
}
template <class Cell, class T> void pack_peepholes(const Dims& d, const T* source, T* out) {
  const int64_t stride = peephole_stride<Cell, T>(d);
  for (int64_t i = 0; i < 3 * stride; ++i) {
    const int64_t unit = i % stride;
    out[i] = source && unit < d.hidden ? source[i / stride * d.hidden + unit] : T(0);
  }
}

// What a cell applies in a layer and direction: `s` is its Sequence or SequenceGradient.
template <class Cell, class S, class T> typename Cell::Functions functions_of(const S& s, const T* peepholes) {
  if constexpr (Cell::Functions::chosen) {
    return {*s.options, s.reverse, peepholes, peephole_stride<Cell, T>(s.dims)};
  } else {
    return {};
  }
}

// The panels that a cell's recurrent product goes through in a forward step; a cell with reset_first has a second one.
template <class Cell> using InputPanel = GatePanel<Cell::gates>;
template <class Cell> using HiddenPanel = GatePanel<Cell::gates - (Cell::reset_first ? 1 : 0)>;

// Where the parts of a forward pack begin, in elements.
template <class Cell, class T> struct ForwardPack {
  int64_t input, input_bias, hidden, hidden_bias;
  int64_t second;  // W_hr of a projection, or the last gate of a cell with reset_first
  int64_t peepholes;
  int64_t zeros;  // a row of zeros, for products that start from nothing
  int64_t size;

  explicit FASTRNN_FN ForwardPack(const Dims& d) {
    using In = InputPanel<Cell>;
    using Hidden = HiddenPanel<Cell>;
    input = 0;
    input_bias = input + In::template size<T>(d.hidden, d.input);
    hidden = input_bias + In::template size<T>(d.hidden, 1);
    hidden_bias = hidden + Hidden::template size<T>(d.hidden, d.output);
    second = hidden_bias + Hidden::template size<T>(d.hidden, 1);
    peepholes = second + (d.projected         ? PlainPanel::size<T>(d.output, d.hidden)
                          : Cell::reset_first ? PlainPanel::size<T>(d.hidden, d.hidden)
                                              : 0);
    zeros = peepholes + 3 * peephole_stride<Cell, T>(d);
    size = zeros + PlainPanel::size<T>(max(d.output, d.hidden), 1);
  }
};

// Of w_ih and w_hh those that are not null.
template <class Cell, class T>
void forward_pack(const Dims& d, const Weights<T>& w, T* pack, int part, int parts) {
  using In = InputPanel<Cell>;
  using Hidden = HiddenPanel<Cell>;
  const ForwardPack<Cell, T> at(d);
  const Range units = share(In::template count<T>(d.hidden), part, parts);
  if (w.w_ih) pack_rows<In>(w.w_ih, d.hidden, d.input, pack + at.input, units);
  if (w.w_hh) pack_rows<Hidden>(w.w_hh, d.hidden, d.output, pack + at.hidden, units);
  if (d.projected) {
    const Range outputs = share(PlainPanel::count<T>(d.output), part, parts);
    pack_rows<PlainPanel>(w.w_hr, d.output, d.hidden, pack + at.second, outputs);
  } else if constexpr (Cell::reset_first) {
    const Range last = share(PlainPanel::count<T>(d.hidden), part, parts);
    pack_rows<PlainPanel>(w.w_hh + (Cell::gates - 1) * d.hidden * d.hidden, d.hidden, d.hidden, pack + at.second, last);
  }
  if (part == 0) {
    // Both biases meet the input product, but for a gate whose recurrent bias the cell keeps apart.
    constexpr int apart = Cell::carries && !Cell::reset_first ? Cell::gates - 1 : Cell::gates;
    pack_bias<In>(w.b_ih, w.b_hh, d.hidden, 0, apart, pack + at.input_bias);
    pack_bias<Hidden>(w.b_hh, static_cast<const T*>(nullptr), d.hidden, apart, 0, pack + at.hidden_bias);
    pack_peepholes<Cell>(d, w.w_peephole, pack + at.peepholes);
    for (int64_t i = at.zeros; i < at.size; ++i) pack[i] = 0;
  }
}

// Where the parts of a backward pack begin: the same weights the other way round.
template <class Cell, class T> struct BackwardPack {
  int64_t hidden;  // W_hh^T, its k in the order of the slots that meet it; without the last gate where reset_first
  int64_t last;    // W_hh^T of the last gate of a cell with reset_first
  int64_t input;   // W_ih^T
  int64_t projection;  // W_hr^T
  int64_t peepholes;
  int64_t zeros;
  int64_t size;

  static constexpr int hidden_gates = Cell::gates - (Cell::reset_first ? 1 : 0);

  explicit FASTRNN_FN BackwardPack(const Dims& d) {
    hidden = 0;
    last = hidden + PlainPanel::size<T>(d.output, hidden_gates * d.hidden);
    input = last + (Cell::reset_first ? PlainPanel::size<T>(d.hidden, d.hidden) : 0);
    projection = input + PlainPanel::size<T>(d.input, Cell::gates * d.hidden);
    peepholes = projection + (d.projected ? PlainPanel::size<T>(d.hidden, d.output) : 0);
    zeros = peepholes + 3 * peephole_stride<Cell, T>(d);
    size = zeros + PlainPanel::size<T>(max(max(d.output, d.hidden), d.input), 1);
  }
};

// Of the weights those that are not null.
template <class Cell, class T>
void backward_pack(const Dims& d, const Weights<T>& w, T* pack, int part, int parts) {
  using Pack = BackwardPack<Cell, T>;
  const Pack at(d);
  const int64_t H = d.hidden, P = d.output;
  const Range outputs = share(PlainPanel::count<T>(P), part, parts);
  for (int gate = 0; w.w_hh && gate < Pack::hidden_gates; ++gate) {
    pack_columns(w.w_hh + gate * H * P, H, P, pack + at.hidden + Cell::hidden_slot[gate] * H * PlainPanel::width<T>,
                 Pack::hidden_gates * H, outputs);
  }
  if constexpr (Cell::reset_first) {
    pack_columns(w.w_hh + Pack::hidden_gates * H * P, H, P, pack + at.last, H, outputs);
  }
  if (w.w_ih) {
    pack_columns(w.w_ih, Cell::gates * H, d.input, pack + at.input, Cell::gates * H,
                 share(PlainPanel::count<T>(d.input), part, parts));
  }
  if (d.projected) {
    pack_columns(w.w_hr, P, H, pack + at.projection, P, share(PlainPanel::count<T>(H), part, parts));
  }
  if (part == 0) {
    pack_peepholes<Cell>(d, w.w_peephole, pack + at.peepholes);
    for (int64_t i = at.zeros; i < at.size; ++i) pack[i] = 0;
  }
}

}  // namespace fastrnn::FASTRNN_ARCH

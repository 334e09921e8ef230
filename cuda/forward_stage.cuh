// The pointwise stage of a forward step: gates, c and h from the products W_ih x and W_hh h.
#pragma once

#include "rows.cuh"

namespace fastrnn::cuda {

// Values a unit and step on the tape. A cell that saves nothing has h there: y may have lost too many of its bits.
template <class Cell> constexpr int saved_values = Cell::saved > 0 ? Cell::saved : 1;

// What the stages of all steps one by one are given. Those of steps inside one kernel (resident.cuh) are given a
// struct that has some of the functions anew: x_of, p_of, p2_of, h_of, put_h, put_between.
template <class T_> struct ForwardStep {
  using T = T_;
  using A = Computed<T>;

  Rows rows;
  int64_t step, hidden, output;
  const A* x;  // (times, B, G, H): W_ih x of some times,
  int64_t first_time;  // from this one on
  const T *b_ih, *b_hh;  // (G H), or null
  View<T> y;
  A *saved, *cells;  // (T, B, S, H) and (T, B, H), tape, or null
  const T *h0, *c0;
  T *h_n, *c_n;
  // Of each row:
  Tile<A> p;  // (G H): the step's product, without the last gate for reset_first
  Tile<A> p2;  // its second product: (H) for reset_first, (P) for a projection
  Tile<T> h;  // (P)
  Tile<A> c;  // (H)
  Tile<T> between;  // (H): what the second product starts from
  Tile<A> kept;  // (G H): for reset_first, gates from the first product to the second

  FASTRNN_FN const A* x_at(int64_t row, int64_t time, int gates, int gate, int64_t unit) const {
    return x + (((time - first_time) * rows.count + row) * gates + gate) * hidden + unit;
  }
  FASTRNN_FN A x_of(int64_t row, int64_t time, int gates, int gate, int64_t unit) const {
    return *x_at(row, time, gates, gate, unit);
  }
  // A product and its bias, if there is one.
  FASTRNN_FN A biased(A product, const T* bias, int gate, int64_t unit) const {
    return bias ? product + widen(bias[gate * hidden + unit]) : product;
  }
  FASTRNN_FN A p_of(int64_t row, int gate, int64_t unit) const { return p.at(row, gate * hidden + unit); }
  FASTRNN_FN A p2_of(int64_t row, int64_t unit) const { return p2.at(row, unit); }
  FASTRNN_FN A h_of(int64_t row, int64_t unit) const { return widen(h.at(row, unit)); }
  FASTRNN_FN A& kept_at(int64_t row, int i, int64_t unit) const { return kept.at(row, i * hidden + unit); }
  FASTRNN_FN A* saved_at(int64_t row, int64_t time, int count, int i, int64_t unit) const {
    return saved + ((time * rows.count + row) * count + i) * hidden + unit;
  }
  FASTRNN_FN void put_h(int64_t row, int64_t time, int64_t unit, A value) const {
    y.data[time * y.time + row * y.row + unit] = h.at(row, unit) = narrow<T>(value);
  }
  FASTRNN_FN void put_between(int64_t row, int64_t unit, A value) const { between.at(row, unit) = narrow<T>(value); }
  FASTRNN_FN void clear_y(int64_t row, int64_t unit) const { y.data[step * y.time + row * y.row + unit] = T{}; }
};

// h and c from h0 and c0.
template <class Cell> struct ForwardBegin {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    if (unit < s.output) s.h.at(row, unit) = s.h0 ? s.h0[row * s.output + unit] : typename S::T{};
    if constexpr (Cell::has_cell) {
      s.c.at(row, unit) = s.c0 ? typename S::A(widen(s.c0[row * s.hidden + unit])) : typename S::A(0);
    }
  }
};

// A row that has ended keeps its h and c; at time `step`, which is past its length, y and the tape are 0.
template <class Cell, class S> FASTRNN_FN void clear_step(const S& s, int64_t row, int64_t unit) {
  if (s.saved) {
    for (int i = 0; i < saved_values<Cell>; ++i) *s.saved_at(row, s.step, saved_values<Cell>, i, unit) = 0;
  }
  if (s.cells) s.cells[(s.step * s.rows.count + row) * s.hidden + unit] = 0;
}

template <class Cell, bool projected> struct ForwardGates {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    if (!s.rows.alive(row, s.step)) {
      if (!projected) s.clear_y(row, unit);
      return clear_step<Cell>(s, row, unit);
    }
    const int64_t time = s.rows.time(row, s.step);
    A x[Cell::gates], p[Cell::gates], saved[saved_values<Cell>];
    for (int i = 0; i < Cell::gates; ++i) {
      x[i] = s.biased(s.x_of(row, time, Cell::gates, i, unit), s.b_ih, i, unit);
      p[i] = s.biased(s.p_of(row, i, unit), s.b_hh, i, unit);
    }
    State<A> state{};
    if constexpr (Cell::carries) state.h = s.h_of(row, unit);
    if constexpr (Cell::has_cell) state.c = s.c.at(row, unit);
    Cell::forward(x, p, saved, state);
    if constexpr (projected) {
      s.put_between(row, unit, state.h);
    } else {
      s.put_h(row, time, unit, state.h);
    }
    if constexpr (Cell::has_cell) s.c.at(row, unit) = state.c;
    if constexpr (Cell::saved == 0) saved[0] = state.h;
    if (s.saved) {
      for (int i = 0; i < saved_values<Cell>; ++i) *s.saved_at(row, time, saved_values<Cell>, i, unit) = saved[i];
    }
    if (s.cells) s.cells[(time * s.rows.count + row) * s.hidden + unit] = state.c;
  }
};

// After the product with W_hr.
struct ForwardProjected {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t j) {
    if (s.rows.alive(row, s.step)) {
      s.put_h(row, s.rows.time(row, s.step), j, s.p2_of(row, j));
    } else {
      s.clear_y(row, j);
    }
  }
};

// A cell with reset_first, before its second product,
template <class Cell> struct ForwardReset {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    constexpr int first = Cell::gates - 1;
    if (!s.rows.alive(row, s.step)) return;
    const int64_t time = s.rows.time(row, s.step);
    A x[first], p[first], kept[Cell::gates];
    for (int i = 0; i < first; ++i) {
      x[i] = s.biased(s.x_of(row, time, Cell::gates, i, unit), s.b_ih, i, unit);
      p[i] = s.biased(s.p_of(row, i, unit), s.b_hh, i, unit);
    }
    s.put_between(row, unit, Cell::forward_reset(x, p, kept, s.h_of(row, unit)));
    for (int i = 0; i < first; ++i) s.kept_at(row, i, unit) = kept[i];
  }
};
// and after it.
template <class Cell> struct ForwardMix {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    constexpr int last = Cell::gates - 1;
    if (!s.rows.alive(row, s.step)) {
      s.clear_y(row, unit);
      return clear_step<Cell>(s, row, unit);
    }
    const int64_t time = s.rows.time(row, s.step);
    A kept[Cell::gates];
    for (int i = 0; i < last; ++i) kept[i] = s.kept_at(row, i, unit);
    const A x = s.biased(s.x_of(row, time, Cell::gates, last, unit), s.b_ih, last, unit);
    const A p = s.biased(s.p2_of(row, unit), s.b_hh, last, unit);
    s.put_h(row, time, unit, Cell::forward_mix(x, p, kept, s.h_of(row, unit)));
    if (s.saved) {
      for (int i = 0; i < Cell::saved; ++i) *s.saved_at(row, time, Cell::saved, i, unit) = kept[i];
    }
  }
};

// h_n and c_n from h and c.
template <class Cell> struct ForwardFinish {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    if (unit < s.output) s.h_n[row * s.output + unit] = s.h.at(row, unit);
    if constexpr (Cell::has_cell) s.c_n[row * s.hidden + unit] = narrow<typename S::T>(s.c.at(row, unit));
  }
};

}  // namespace fastrnn::cuda

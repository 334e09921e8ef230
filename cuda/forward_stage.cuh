// The pointwise stage of a forward step: gates, c and h from the products W_ih x and W_hh h.
#pragma once

#include "rows.cuh"

namespace fastrnn::cuda {

// Values a unit and step on the tape. A cell that saves nothing has h there: y may have lost too many of its bits.
template <class Cell> constexpr int saved_values = Cell::saved > 0 ? Cell::saved : 1;

template <class T> struct ForwardStep {
  using A = Computed<T>;

  Rows rows;
  int64_t step, hidden, output;
  const A* x;  // (times, B, G, H): W_ih x of some times,
  int64_t first_time;  // from this one on
  const A* p;  // the step's product: (B, G, H), without the last gate for reset_first
  const A* p2;  // its second product: (B, H) for reset_first, (B, P) for a projection
  const T *b_ih, *b_hh;  // (G H), or null
  T* h;  // (B, P)
  A* c;  // (B, H)
  T* between;  // (B, H): what the second product starts from
  A* kept;  // (B, G, H): for reset_first, gates from the first product to the second
  View<T> y;
  A* saved;  // (T, B, S, H), tape, or null
  A* cells;  // (T, B, H), likewise
  const T *h0, *c0;
  T *h_n, *c_n;

  FASTRNN_FN A x_of(int64_t row, int64_t time, int gates, int gate, int64_t unit) const {
    const A product = x[(((time - first_time) * rows.count + row) * gates + gate) * hidden + unit];
    return b_ih ? product + widen(b_ih[gate * hidden + unit]) : product;
  }
  FASTRNN_FN A p_of(int64_t row, int gates, int gate, int64_t unit) const {
    return with_bias(p[(row * gates + gate) * hidden + unit], gate, unit);
  }
  FASTRNN_FN A with_bias(A product, int gate, int64_t unit) const {
    return b_hh ? product + widen(b_hh[gate * hidden + unit]) : product;
  }
  FASTRNN_FN A* saved_at(int64_t row, int64_t time, int count, int i, int64_t unit) const {
    return saved + ((time * rows.count + row) * count + i) * hidden + unit;
  }
  FASTRNN_FN void put_h(int64_t row, int64_t time, int64_t unit, A value) const {
    y.data[time * y.time + row * y.row + unit] = h[row * output + unit] = narrow<T>(value);
  }
  FASTRNN_FN void clear_y(int64_t row, int64_t unit) const { y.data[step * y.time + row * y.row + unit] = T{}; }
};

// h and c from h0 and c0.
template <class T> __global__ void begin_forward(ForwardStep<T> s) {
  for_each_element(s.rows.count, s.output,
                   [&](int64_t row, int64_t j) { s.h[row * s.output + j] = s.h0 ? s.h0[row * s.output + j] : T{}; });
  if (!s.c) return;
  for_each_element(s.rows.count, s.hidden, [&](int64_t row, int64_t unit) {
    s.c[row * s.hidden + unit] = s.c0 ? widen(s.c0[row * s.hidden + unit]) : Computed<T>(0);
  });
}

// A row that has ended keeps its h and c; at time `step`, which is past its length, y and the tape are 0.
template <class Cell, class T> FASTRNN_FN void clear_step(const ForwardStep<T>& s, int64_t row, int64_t unit) {
  if (s.saved) {
    for (int i = 0; i < saved_values<Cell>; ++i) *s.saved_at(row, s.step, saved_values<Cell>, i, unit) = 0;
  }
  if (s.cells) s.cells[(s.step * s.rows.count + row) * s.hidden + unit] = 0;
}

template <class Cell, class T, bool projected> __global__ void forward_step(ForwardStep<T> s) {
  using A = Computed<T>;
  for_each_element(s.rows.count, s.hidden, [&](int64_t row, int64_t unit) {
    if (!s.rows.alive(row, s.step)) {
      if (!projected) s.clear_y(row, unit);
      return clear_step<Cell>(s, row, unit);
    }
    const int64_t time = s.rows.time(row, s.step);
    A x[Cell::gates], p[Cell::gates], saved[saved_values<Cell>];
    for (int i = 0; i < Cell::gates; ++i) {
      x[i] = s.x_of(row, time, Cell::gates, i, unit);
      p[i] = s.p_of(row, Cell::gates, i, unit);
    }
    State<A> state{};
    if constexpr (Cell::carries) state.h = widen(s.h[row * s.output + unit]);
    if constexpr (Cell::has_cell) state.c = s.c[row * s.hidden + unit];
    Cell::forward(x, p, saved, state);
    if constexpr (projected) {
      s.between[row * s.hidden + unit] = narrow<T>(state.h);
    } else {
      s.put_h(row, time, unit, state.h);
    }
    if constexpr (Cell::has_cell) s.c[row * s.hidden + unit] = state.c;
    if constexpr (Cell::saved == 0) saved[0] = state.h;
    if (s.saved) {
      for (int i = 0; i < saved_values<Cell>; ++i) *s.saved_at(row, time, saved_values<Cell>, i, unit) = saved[i];
    }
    if (s.cells) s.cells[(time * s.rows.count + row) * s.hidden + unit] = state.c;
  });
}

// After the product with W_hr.
template <class T> __global__ void forward_project(ForwardStep<T> s) {
  for_each_element(s.rows.count, s.output, [&](int64_t row, int64_t j) {
    if (s.rows.alive(row, s.step)) {
      s.put_h(row, s.rows.time(row, s.step), j, s.p2[row * s.output + j]);
    } else {
      s.clear_y(row, j);
    }
  });
}

// A cell with reset_first, before its second product,
template <class Cell, class T> __global__ void forward_reset(ForwardStep<T> s) {
  using A = Computed<T>;
  constexpr int first = Cell::gates - 1;
  for_each_element(s.rows.count, s.hidden, [&](int64_t row, int64_t unit) {
    if (!s.rows.alive(row, s.step)) return;
    const int64_t time = s.rows.time(row, s.step);
    A x[first], p[first], kept[Cell::gates];
    for (int i = 0; i < first; ++i) {
      x[i] = s.x_of(row, time, Cell::gates, i, unit);
      p[i] = s.p_of(row, first, i, unit);
    }
    const A rh = Cell::forward_reset(x, p, kept, A(widen(s.h[row * s.output + unit])));
    s.between[row * s.hidden + unit] = narrow<T>(rh);
    for (int i = 0; i < first; ++i) s.kept[(row * Cell::gates + i) * s.hidden + unit] = kept[i];
  });
}
// and after it.
template <class Cell, class T> __global__ void forward_mix(ForwardStep<T> s) {
  using A = Computed<T>;
  constexpr int last = Cell::gates - 1;
  for_each_element(s.rows.count, s.hidden, [&](int64_t row, int64_t unit) {
    if (!s.rows.alive(row, s.step)) {
      s.clear_y(row, unit);
      return clear_step<Cell>(s, row, unit);
    }
    const int64_t time = s.rows.time(row, s.step);
    A kept[Cell::gates];
    for (int i = 0; i < last; ++i) kept[i] = s.kept[(row * Cell::gates + i) * s.hidden + unit];
    const A x = s.x_of(row, time, Cell::gates, last, unit);
    const A p = s.with_bias(s.p2[row * s.hidden + unit], last, unit);
    s.put_h(row, time, unit, Cell::forward_mix(x, p, kept, A(widen(s.h[row * s.output + unit]))));
    if (s.saved) {
      for (int i = 0; i < Cell::saved; ++i) *s.saved_at(row, time, Cell::saved, i, unit) = kept[i];
    }
  });
}

// h_n and c_n from h and c.
template <class T> __global__ void finish_forward(ForwardStep<T> s) {
  for_each_element(s.rows.count, s.output,
                   [&](int64_t row, int64_t j) { s.h_n[row * s.output + j] = s.h[row * s.output + j]; });
  if (!s.c) return;
  for_each_element(s.rows.count, s.hidden, [&](int64_t row, int64_t unit) {
    s.c_n[row * s.hidden + unit] = narrow<T>(s.c[row * s.hidden + unit]);
  });
}

}  // namespace fastrnn::cuda

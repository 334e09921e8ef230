// The pointwise stage of a backward step: gradients of the gates from that of h, which is dy, what came through the
// product with W_hh at the step after, and what came past it. And, over all time, what the products for the weights
// need.
#pragma once

#include "elements.cuh"
#include "forward_stage.cuh"

namespace fastrnn::cuda {

// How the gradients of a step lie in memory: first those that meet W_hh, in the order of its rows, then what else there
// is; the product of a step then takes one run of memory. `at` is by the cell's own number of a slot.
template <class Cell> struct SlotOrder {
  int at[Cell::slots];
};
template <class Cell> constexpr SlotOrder<Cell> make_slot_order() {
  SlotOrder<Cell> order{};
  for (int slot = 0; slot < Cell::slots; ++slot) order.at[slot] = Cell::gates;  // at most one is not among W_hh's
  for (int gate = 0; gate < Cell::gates; ++gate) order.at[Cell::hidden_slot[gate]] = gate;
  return order;
}
template <class Cell> inline constexpr SlotOrder<Cell> slot_order = make_slot_order<Cell>();

// As ForwardStep; anew for steps inside one kernel are product_of, d_hidden_of, saved_of, c_before, c_after, put_slot.
template <class T_> struct BackwardStep {
  using T = T_;
  using A = Computed<T>;

  Rows rows;
  int64_t step, hidden, output;
  const A *saved, *cells;  // (T, B, S, H) and (T, B, H), tape
  View<const T> y;
  const T *h0, *c0;  // or null
  View<const T> dy;  // or null; what came through the dropout
  Dropout dropout;
  int64_t column;
  T* slots;  // (T, B, slots, H)
  T* d_output;  // (T, B, P): with a projection, gradients of its output
  const T *dh_n, *dc_n;  // or null
  T *dh0, *dc0;
  bool has_product;  // not at the last step
  // Of each row:
  Tile<A> product;  // (P): what the step after sends through W_hh
  Tile<A> carried;  // (P): what it sends past W_hh; before a row's last step, dh_n
  Tile<A> dc;  // (H), likewise
  Tile<T> step_slots;  // (slots, H): this step's once more
  Tile<T> step_d_output;  // (P): likewise
  Tile<A> d_hidden;  // (H): with a projection, gradients of its input; for reset_first, of r h

  FASTRNN_FN A product_of(int64_t row, int64_t j) const { return product.at(row, j); }
  FASTRNN_FN A d_hidden_of(int64_t row, int64_t unit) const { return d_hidden.at(row, unit); }
  // The gradient of y, through the dropout.
  FASTRNN_FN A dy_of(int64_t row, int64_t time, int64_t j) const {
    if (!dy.data) return 0;
    const A d = widen(dy.data[time * dy.time + row * dy.row + j]);
    const int64_t number = (time * rows.count + row) * dropout.width + column + j;
    return dropout.active ? dropped<T>(dropout, dropout_key(dropout), number, d) : d;
  }
  FASTRNN_FN A h_before(int64_t row, int64_t j) const {
    if (step > 0) return widen(y.data[rows.time(row, step - 1) * y.time + row * y.row + j]);
    return h0 ? A(widen(h0[row * output + j])) : A(0);
  }
  FASTRNN_FN const A* cell_at(int64_t row, int64_t time, int64_t unit) const {
    return cells + (time * rows.count + row) * hidden + unit;
  }
  FASTRNN_FN A c_before(int64_t row, int64_t unit) const {
    if (step > 0) return *cell_at(row, rows.time(row, step - 1), unit);
    return c0 ? A(widen(c0[row * hidden + unit])) : A(0);
  }
  FASTRNN_FN A c_after(int64_t row, int64_t time, int64_t unit) const { return *cell_at(row, time, unit); }
  FASTRNN_FN const A* saved_at(int64_t row, int64_t time, int count, int i, int64_t unit) const {
    return saved + ((time * rows.count + row) * count + i) * hidden + unit;
  }
  FASTRNN_FN A saved_of(int64_t row, int64_t time, int count, int i, int64_t unit) const {
    return *saved_at(row, time, count, i, unit);
  }
  FASTRNN_FN T* slot_at(int64_t row, int64_t time, int count, int place, int64_t unit) const {
    return slots + ((time * rows.count + row) * count + place) * hidden + unit;
  }
  template <class Cell> FASTRNN_FN void put_slot(int64_t row, int64_t time, int slot, int64_t unit, A value) const {
    constexpr SlotOrder<Cell> order = slot_order<Cell>;  // a copy: device code cannot index the other
    const int place = order.at[slot];
    *slot_at(row, time, Cell::slots, place, unit) = step_slots.at(row, place * hidden + unit) = narrow<T>(value);
  }
};

// What came to h at a step: from its y, and from the step after, through the product and past it.
template <class S> FASTRNN_FN typename S::A dh(const S& s, int64_t row, int64_t time, int64_t j) {
  const typename S::A sum = s.carried.at(row, j) + s.dy_of(row, time, j);
  return s.has_product ? sum + s.product_of(row, j) : sum;
}

// At time `step`, which is past a row's length. The zeros there also keep the row out of the step's product.
template <class Cell, class S> FASTRNN_FN void clear_slots(const S& s, int64_t row, int64_t unit) {
  for (int slot = 0; slot < Cell::slots; ++slot) s.template put_slot<Cell>(row, s.step, slot, unit, 0);
}

template <class Cell> struct BackwardBegin {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    if (unit < s.output) s.carried.at(row, unit) = s.dh_n ? A(widen(s.dh_n[row * s.output + unit])) : A(0);
    if constexpr (Cell::has_cell) s.dc.at(row, unit) = s.dc_n ? A(widen(s.dc_n[row * s.hidden + unit])) : A(0);
  }
};

// The gradient of a projection's output, before the product with W_hr.
struct BackwardProjected {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t j) {
    const bool alive = s.rows.alive(row, s.step);
    const int64_t time = alive ? s.rows.time(row, s.step) : s.step;
    const auto d = narrow<typename S::T>(alive ? dh(s, row, time, j) : 0);
    s.d_output[(time * s.rows.count + row) * s.output + j] = s.step_d_output.at(row, j) = d;
    if (alive) s.carried.at(row, j) = 0;
  }
};

template <class Cell, bool projected> struct BackwardGates {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    if (!s.rows.alive(row, s.step)) return clear_slots<Cell>(s, row, unit);
    const int64_t time = s.rows.time(row, s.step);
    A saved[saved_values<Cell>], slot[Cell::slots];
    for (int k = 0; k < saved_values<Cell>; ++k) saved[k] = s.saved_of(row, time, saved_values<Cell>, k, unit);
    State<A> before{}, after{}, d{};
    if constexpr (Cell::carries) before.h = s.h_before(row, unit);
    if constexpr (Cell::has_cell) {
      before.c = s.c_before(row, unit);
      after.c = s.c_after(row, time, unit);
      d.c = s.dc.at(row, unit);
    }
    if constexpr (Cell::saved == 0) after.h = saved[0];
    d.h = projected ? s.d_hidden_of(row, unit) : dh(s, row, time, unit);
    Cell::backward(saved, before, after, d, slot);
    for (int k = 0; k < Cell::slots; ++k) s.template put_slot<Cell>(row, time, k, unit, slot[k]);
    if constexpr (Cell::has_cell) s.dc.at(row, unit) = d.c;
    if constexpr (!projected) s.carried.at(row, unit) = Cell::carries ? d.h : 0;
  }
};

// A cell with reset_first, before the product of its step,
template <class Cell> struct BackwardMix {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    if (!s.rows.alive(row, s.step)) return clear_slots<Cell>(s, row, unit);
    const int64_t time = s.rows.time(row, s.step);
    A saved[Cell::saved], slot[Cell::slots];
    for (int k = 0; k < Cell::saved; ++k) saved[k] = s.saved_of(row, time, Cell::saved, k, unit);
    s.carried.at(row, unit) = Cell::backward_mix(saved, s.h_before(row, unit), dh(s, row, time, unit), slot);
    for (int k = 1; k < Cell::slots; ++k) s.template put_slot<Cell>(row, time, k, unit, slot[k]);
  }
};
// and after it.
template <class Cell> struct BackwardReset {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    using A = typename S::A;
    if (!s.rows.alive(row, s.step)) return;
    const int64_t time = s.rows.time(row, s.step);
    A saved[Cell::saved], slot[Cell::slots];
    for (int k = 0; k < Cell::saved; ++k) saved[k] = s.saved_of(row, time, Cell::saved, k, unit);
    s.carried.at(row, unit) += Cell::backward_reset(saved, s.h_before(row, unit), s.d_hidden_of(row, unit), slot);
    s.template put_slot<Cell>(row, time, 0, unit, slot[0]);
  }
};

// dh0 and dc0.
template <class Cell> struct BackwardFinish {
  template <class S> static FASTRNN_FN void run(const S& s, int64_t row, int64_t unit) {
    if (unit < s.output) {
      const typename S::A carried = s.carried.at(row, unit);
      s.dh0[row * s.output + unit] = narrow<typename S::T>(s.has_product ? carried + s.product_of(row, unit) : carried);
    }
    if constexpr (Cell::has_cell) s.dc0[row * s.hidden + unit] = narrow<typename S::T>(s.dc.at(row, unit));
  }
};

// What W_hh met at each time, (T B, P): the h before it; 0 past a row's length. With `reset`, r h.
template <class Cell, class T, bool reset> __global__ void gather_before(BackwardStep<T> s, T* to) {
  for_each_element(s.rows.steps * s.rows.count, s.output, [&](int64_t i, int64_t j) {
    const int64_t time = i / s.rows.count, row = i % s.rows.count;
    Computed<T> h = 0;
    if (time < s.rows.length(row)) {
      BackwardStep<T> at = s;
      at.step = s.rows.step(row, time);
      h = at.h_before(row, j);
      if constexpr (reset) h *= s.saved_of(row, time, Cell::saved, 0, j);
    }
    to[i * s.output + j] = narrow<T>(h);
  });
}

// What W_hr met, (T B, H): h before the projection.
template <class Cell, class T> __global__ void gather_unprojected(BackwardStep<T> s, T* to) {
  for_each_element(s.rows.steps * s.rows.count, s.hidden, [&](int64_t i, int64_t unit) {
    const int64_t time = i / s.rows.count, row = i % s.rows.count;
    Computed<T> h = 0;
    if (time < s.rows.length(row)) {
      Computed<T> gate[Cell::saved];
      for (int k = 0; k < Cell::saved; ++k) gate[k] = s.saved_of(row, time, Cell::saved, k, unit);
      h = Cell::output(gate, s.cells[i * s.hidden + unit]);
    }
    to[i * s.hidden + unit] = narrow<T>(h);
  });
}

}  // namespace fastrnn::cuda

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

template <class T> struct BackwardStep {
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

  FASTRNN_FN A dh(int64_t row, int64_t time, int64_t j) const {
    A sum = carried.at(row, j);
    if (has_product) sum += product.at(row, j);
    if (!dy.data) return sum;
    const A d = widen(dy.data[time * dy.time + row * dy.row + j]);
    const int64_t number = (time * rows.count + row) * dropout.width + column + j;
    return sum + (dropout.active ? dropped<T>(dropout, dropout_key(dropout), number, d) : d);
  }
  FASTRNN_FN A h_before(int64_t row, int64_t j) const {
    if (step > 0) return widen(y.data[rows.time(row, step - 1) * y.time + row * y.row + j]);
    return h0 ? A(widen(h0[row * output + j])) : A(0);
  }
  FASTRNN_FN A c_before(int64_t row, int64_t unit) const {
    if (step > 0) return cells[(rows.time(row, step - 1) * rows.count + row) * hidden + unit];
    return c0 ? A(widen(c0[row * hidden + unit])) : A(0);
  }
  FASTRNN_FN A saved_of(int64_t row, int64_t time, int count, int i, int64_t unit) const {
    return saved[((time * rows.count + row) * count + i) * hidden + unit];
  }
  template <class Cell> FASTRNN_FN void put_slot(int64_t row, int64_t time, int slot, int64_t unit, A value) const {
    constexpr SlotOrder<Cell> order = slot_order<Cell>;  // a copy: device code cannot index the other
    const int64_t place = order.at[slot] * hidden + unit;
    slots[(time * rows.count + row) * Cell::slots * hidden + place] = step_slots.at(row, place) = narrow<T>(value);
  }
  // At time `step`, which is past a row's length. The zeros there also keep the row out of the step's product.
  template <class Cell> FASTRNN_FN void clear_slots(int64_t row, int64_t unit) const {
    for (int slot = 0; slot < Cell::slots; ++slot) put_slot<Cell>(row, step, slot, unit, 0);
  }
};

template <class Cell> struct BackwardBegin {
  template <class T> static FASTRNN_FN void run(const BackwardStep<T>& s, int64_t row, int64_t unit) {
    using A = Computed<T>;
    if (unit < s.output) s.carried.at(row, unit) = s.dh_n ? A(widen(s.dh_n[row * s.output + unit])) : A(0);
    if constexpr (Cell::has_cell) s.dc.at(row, unit) = s.dc_n ? A(widen(s.dc_n[row * s.hidden + unit])) : A(0);
  }
};

// The gradient of a projection's output, before the product with W_hr.
struct BackwardProjected {
  template <class T> static FASTRNN_FN void run(const BackwardStep<T>& s, int64_t row, int64_t j) {
    const bool alive = s.rows.alive(row, s.step);
    const int64_t time = alive ? s.rows.time(row, s.step) : s.step;
    const T d = alive ? narrow<T>(s.dh(row, time, j)) : T{};
    s.d_output[(time * s.rows.count + row) * s.output + j] = s.step_d_output.at(row, j) = d;
    if (alive) s.carried.at(row, j) = 0;
  }
};

template <class Cell, bool projected> struct BackwardGates {
  template <class T> static FASTRNN_FN void run(const BackwardStep<T>& s, int64_t row, int64_t unit) {
    using A = Computed<T>;
    if (!s.rows.alive(row, s.step)) return s.template clear_slots<Cell>(row, unit);
    const int64_t time = s.rows.time(row, s.step);
    A saved[saved_values<Cell>], slot[Cell::slots];
    for (int k = 0; k < saved_values<Cell>; ++k) saved[k] = s.saved_of(row, time, saved_values<Cell>, k, unit);
    State<A> before{}, after{}, d{};
    if constexpr (Cell::carries) before.h = s.h_before(row, unit);
    if constexpr (Cell::has_cell) {
      before.c = s.c_before(row, unit);
      after.c = s.cells[(time * s.rows.count + row) * s.hidden + unit];
      d.c = s.dc.at(row, unit);
    }
    if constexpr (Cell::saved == 0) after.h = saved[0];
    d.h = projected ? s.d_hidden.at(row, unit) : s.dh(row, time, unit);
    Cell::backward(saved, before, after, d, slot);
    for (int k = 0; k < Cell::slots; ++k) s.template put_slot<Cell>(row, time, k, unit, slot[k]);
    if constexpr (Cell::has_cell) s.dc.at(row, unit) = d.c;
    if constexpr (!projected) s.carried.at(row, unit) = Cell::carries ? d.h : 0;
  }
};

// A cell with reset_first, before the product of its step,
template <class Cell> struct BackwardMix {
  template <class T> static FASTRNN_FN void run(const BackwardStep<T>& s, int64_t row, int64_t unit) {
    using A = Computed<T>;
    if (!s.rows.alive(row, s.step)) return s.template clear_slots<Cell>(row, unit);
    const int64_t time = s.rows.time(row, s.step);
    A saved[Cell::saved], slot[Cell::slots];
    for (int k = 0; k < Cell::saved; ++k) saved[k] = s.saved_of(row, time, Cell::saved, k, unit);
    const A dh = s.dh(row, time, unit);
    s.carried.at(row, unit) = Cell::backward_mix(saved, s.h_before(row, unit), dh, slot);
    for (int k = 1; k < Cell::slots; ++k) s.template put_slot<Cell>(row, time, k, unit, slot[k]);
  }
};
// and after it.
template <class Cell> struct BackwardReset {
  template <class T> static FASTRNN_FN void run(const BackwardStep<T>& s, int64_t row, int64_t unit) {
    using A = Computed<T>;
    if (!s.rows.alive(row, s.step)) return;
    const int64_t time = s.rows.time(row, s.step);
    A saved[Cell::saved], slot[Cell::slots];
    for (int k = 0; k < Cell::saved; ++k) saved[k] = s.saved_of(row, time, Cell::saved, k, unit);
    s.carried.at(row, unit) += Cell::backward_reset(saved, s.h_before(row, unit), s.d_hidden.at(row, unit), slot);
    s.template put_slot<Cell>(row, time, 0, unit, slot[0]);
  }
};

// dh0 and dc0.
template <class Cell> struct BackwardFinish {
  template <class T> static FASTRNN_FN void run(const BackwardStep<T>& s, int64_t row, int64_t unit) {
    if (unit < s.output) {
      const Computed<T> carried = s.carried.at(row, unit);
      s.dh0[row * s.output + unit] = narrow<T>(s.has_product ? carried + s.product.at(row, unit) : carried);
    }
    if constexpr (Cell::has_cell) s.dc0[row * s.hidden + unit] = narrow<T>(s.dc.at(row, unit));
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

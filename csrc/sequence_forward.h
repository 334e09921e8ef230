// The time loop of one layer and direction, forward: W_ih x for a chunk of steps at once, then W_hh h step by step with
// the cell's pointwise stage applied to each tile as it leaves the registers.
#pragma once

#include "cells/state.h"
#include "product.h"
#include "rows.h"

namespace fastrnn::FASTRNN_ARCH {

template <class Cell, class T> class ForwardPass {
  using V = Vec<T>;
  using In = InputPanel<Cell>;
  using Hidden = HiddenPanel<Cell>;
  static constexpr int L = lanes<T>;
  static constexpr int saved_slots = Cell::saved > 0 ? Cell::saved : 1;
  static constexpr const T* null = nullptr;

 public:
  static int64_t scratch(const Dims& d, const ChunkRows& chunk, int teams) {
    Arena<T> arena{nullptr};
    shared_buffers(d, arena, nullptr);
    for (int team = 0; team < teams; ++team) team_buffers(d, chunk, teams, arena, nullptr);
    return arena.used;
  }

  ForwardPass(const Sequence<T>& sequence, const Member& member)
      : s(sequence), d(sequence.dims), me(member), at(sequence.dims),
        functions(functions_of<Cell>(sequence, sequence.pack + at.peepholes)),
        rows(sequence.batch, sequence.dims, sequence.reverse, member.team, member.teams),
        h_stride(row_stride<T>(d.output)), hidden_stride(row_stride<T>(d.hidden)) {
    Arena<T> arena{s.scratch};
    shared_buffers(d, arena, this);
    for (int team = 0; team <= me.team; ++team) team_buffers(d, s.chunk, me.teams, arena, this);
    units = share(In::template count<T>(d.hidden), me.rank, me.team_size);
    second_panels = share(PlainPanel::count<T>(d.projected ? d.output : d.hidden), me.rank, me.team_size);
  }

  void run() {
    begin();
    for (int64_t step = 0; step < d.steps && rows.alive(step) > 0;) {
      const int64_t end = input_product(step);
      int64_t offset = 0;  // of the step's rows in the chunk
      for (; step < end; ++step) {
        one_step(step, offset);
        offset += rows.alive(step);
      }
    }
    finish();
  }

 private:
  // Buffers that all teams of the direction use, each its own rows of them.
  static void shared_buffers(const Dims& d, Arena<T>& arena, ForwardPass* pass) {
    T* h[2];
    for (T*& buffer : h) buffer = arena.take(d.rows * row_stride<T>(d.output));
    T* c = Cell::has_cell ? arena.take(d.rows * row_stride<T>(d.hidden)) : nullptr;
    T* between = d.projected || Cell::reset_first ? arena.take(d.rows * row_stride<T>(d.hidden)) : nullptr;
    T* gates = Cell::reset_first ? arena.take(d.rows * Cell::saved * d.hidden) : nullptr;
    if (!pass) return;
    pass->h_state[0] = h[0];
    pass->h_state[1] = h[1];
    pass->c_state = c;
    pass->between = between;
    pass->step_saved = gates;
  }

  static void team_buffers(const Dims& d, const ChunkRows& chunk, int teams, Arena<T>& arena, ForwardPass* pass) {
    const int64_t capacity = max(chunk.forward, ceil_div(d.rows, teams));
    T* products = arena.take(In::template count<T>(d.hidden) * capacity * In::template width<T>);
    T* input = arena.take(capacity * row_stride<T>(d.input));
    if (!pass) return;
    pass->capacity = capacity;
    pass->products = products;
    pass->input = input;
  }

  void begin() {
    const Range mine = share(rows.count, me.rank, me.team_size);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const int64_t b = rows.original(row), g = rows.sorted(row);
      set_row(h_state[0] + g * h_stride, h_stride, s.h0 ? s.h0 + b * d.output : null, d.output);
      set_row(h_state[1] + g * h_stride, h_stride, null, 0);
      if (Cell::has_cell)
        set_row(c_state + g * hidden_stride, hidden_stride, s.c0 ? s.c0 + b * d.hidden : null, d.hidden);
      if (between) set_row(between + g * hidden_stride, hidden_stride, null, 0);
    }
    if (!rows.full() && !rows.packed()) {
      clear_padding(rows, d.steps, s.y.row, s.y.time, d.output, s.y.data, me);
      if (s.saved)
        clear_padding(rows, d.steps, Cell::saved * d.hidden, d.rows * Cell::saved * d.hidden, Cell::saved * d.hidden,
                      s.saved, me);
      if (s.cells) clear_padding(rows, d.steps, d.hidden, d.rows * d.hidden, d.hidden, s.cells, me);
    }
    me.team_barrier->wait();
  }

  // W_ih x and biases for the steps of a chunk, this member's panels of it. Returns the step after the chunk.
  int64_t input_product(int64_t first) {
    int64_t end = first, count = 0;
    while (end < d.steps && rows.alive(end) > 0 && (end == first || count + rows.alive(end) <= capacity)) {
      count += rows.alive(end++);
    }
    const T* a = rows.place(s.x, rows.time(0, first), rows.first);
    int64_t stride = s.reverse ? -s.x.time : s.x.time;
    // Rows that lie evenly in memory are read where they are.
    const bool one_run =
        !s.reverse &&
        (rows.packed() ? me.teams == 1 : rows.full() && s.x.time == d.rows * s.x.row && d.rows % me.teams == 0);
    const bool one_row = rows.full() && rows.count == 1;
    const bool even = s.x.unit == 1 && !s.dropout.active && (one_row || one_run);
    if (even) {
      if (!one_row) stride = rows.stride * s.x.row;
    } else {
      stride = row_stride<T>(d.input);
      int64_t k = 0;
      for (int64_t step = first; step < end; ++step) {
        const int64_t n = rows.alive(step);
        const Range mine = share(n, me.rank, me.team_size);
        for (int64_t row = mine.begin; row < mine.end; ++row) {
          copy_input(s.x, s.dropout, rows, rows.time(row, step), rows.original(row), 0, d.input,
                     input + (k + row) * stride);
        }
        k += n;
      }
      a = input;
      me.team_barrier->wait();
    }
    constexpr int W = In::template width<T>;
    multiply_many<In>(Product<T>{.depth = d.input,
                                 .a = a,
                                 .a_stride = stride,
                                 .rows = count,
                                 .panels = s.pack + at.input,
                                 .init = s.pack + at.input_bias,
                                 .range = units,
                                 .side_by_side = capacity == 1,
                                 .from = s.weights,
                                 .unpacked = unpacked<In>(s.w_ih, at.input, d.input)},
                      [&](int64_t row, int64_t, int64_t panel, int64_t) {
                        return Target<T>{products + (panel * capacity + row) * W, W, capacity * W};
                      });
    if (even && s.in_place) me.team_barrier->wait();
    return end;
  }

  // Vector `vector` of units in the input product of a row of the chunk: its gates follow one another.
  FASTRNN_FN const T* product_of(int64_t vector, int64_t row) const {
    const int64_t panel = vector / In::units, inside = vector % In::units;
    return products + (panel * capacity + row) * In::template width<T> + inside * L;
  }

  // Of this member's panels, in the place of the first; none of weights that the pack has.
  template <class P> Unpacked<T> unpacked(const T* weights, int64_t place, int64_t depth) const {
    if (!weights) return {};
    return {weights, d.hidden, s.panels + place + units.begin * depth * P::template width<T>, pack_panel<P, T>,
            multiply_row<P, T>};
  }

  // `count` rows of the team, their A the rows of `a` by sorted row.
  Product<T> step_product(const T* a, int64_t stride, int64_t depth, int64_t count, int64_t pack, int64_t bias,
                          Range range, int64_t step) const {
    // Going back and forth leaves the end of one step's weights in the cache for the start of the next.
    const bool backwards = step % 2 == 1;
    return {.depth = depth,
            .a = a + rows.first * stride,
            .a_stride = rows.stride * stride,
            .rows = count,
            .panels = s.pack + pack,
            .init = s.pack + bias,
            .range = range,
            .backwards = backwards,
            .from = s.weights};
  }

  void one_step(int64_t step, int64_t offset) {
    const int64_t count = rows.alive(step);
    Product<T> gates =
        step_product(h_state[step % 2], h_stride, d.output, count, at.hidden, at.hidden_bias, units, step);
    gates.unpacked = unpacked<Hidden>(s.w_hh, at.hidden, d.output);
    multiply_pointwise<Hidden>(gates, 0, d.hidden, nullptr,
                               [&](int64_t row, int64_t vector, const T* p) FASTRNN_LAMBDA {
                                 if constexpr (Cell::reset_first) {
                                   reset_gates(row, vector, p, step, offset);
                                 } else {
                                   pointwise(row, vector, p, step, offset);
                                 }
                               });
    me.team_barrier->wait();
    if (!Cell::reset_first && !d.projected) return;
    multiply_pointwise<PlainPanel>(
        step_product(between, hidden_stride, d.hidden, count, at.second, at.zeros, second_panels, step), 0,
        d.projected ? d.output : d.hidden, nullptr, [&](int64_t row, int64_t vector, const T* p) FASTRNN_LAMBDA {
          if constexpr (Cell::reset_first) {
            candidate(row, vector, p, step, offset);
          } else {
            put_h(row, vector * L, load(p), step);
          }
        });
    me.team_barrier->wait();
  }

  FASTRNN_FN int64_t tape_row(int64_t row, int64_t step) const {
    return rows.number(rows.time(row, step), rows.original(row));
  }

  FASTRNN_FN void put_h(int64_t row, int64_t unit, V h, int64_t step) const {
    store(h_state[(step + 1) % 2] + rows.sorted(row) * h_stride + unit, h);
    store_live(rows.place(s.y, rows.time(row, step), rows.original(row)) + unit, h, live_lanes<T>(d.output, unit));
  }

  // A vector of units of a row: its gates, c and h from the product p = W_hh h.
  FASTRNN_FN void pointwise(int64_t row, int64_t vector, const T* p, int64_t step, int64_t offset) const {
    const int64_t unit = vector * L, g = rows.sorted(row);
    const int live = live_lanes<T>(d.hidden, unit);
    const T* x = product_of(vector, offset + row);
    V xs[Cell::gates], ps[Cell::gates], saved[saved_slots];
    for (int i = 0; i < Cell::gates; ++i) xs[i] = load(x + i * L), ps[i] = load(p + i * L);
    State<V> state{};
    if (Cell::carries) state.h = load(h_state[step % 2] + g * h_stride + unit);
    if (Cell::has_cell) state.c = load(c_state + g * hidden_stride + unit);
    Cell::forward(xs, ps, saved, state, functions.unit(unit));
    if (Cell::has_cell) store(c_state + g * hidden_stride + unit, state.c);
    if (d.projected) {
      store(between + g * hidden_stride + unit, state.h);
    } else {
      put_h(row, unit, state.h, step);
    }
    if (s.saved && Cell::saved) {
      T* to = s.saved + tape_row(row, step) * Cell::saved * d.hidden + unit;
      for (int i = 0; i < Cell::saved; ++i) store_live(to + i * d.hidden, saved[i], live);
    }
    if (s.cells && Cell::has_cell) store_live(s.cells + tape_row(row, step) * d.hidden + unit, state.c, live);
  }

  // A cell with reset_first keeps its first gates for its second product, on the tape or beside it.
  FASTRNN_FN T* first_gates(int64_t row, int64_t step) const {
    return s.saved ? s.saved + tape_row(row, step) * Cell::saved * d.hidden
                   : step_saved + rows.sorted(row) * Cell::saved * d.hidden;
  }
  FASTRNN_FN void reset_gates(int64_t row, int64_t vector, const T* p, int64_t step, int64_t offset) const {
    const int64_t unit = vector * L, g = rows.sorted(row);
    const int live = live_lanes<T>(d.hidden, unit);
    const T* x = product_of(vector, offset + row);
    V xs[Hidden::gates], ps[Hidden::gates], saved[saved_slots];
    for (int i = 0; i < Hidden::gates; ++i) xs[i] = load(x + i * L), ps[i] = load(p + i * L);
    const V h = load(h_state[step % 2] + g * h_stride + unit);
    store(between + g * hidden_stride + unit, Cell::forward_reset(xs, ps, saved, h, functions.unit(unit)));
    T* to = first_gates(row, step) + unit;
    for (int i = 0; i < Cell::saved; ++i) {
      if (i % Cell::gates < Hidden::gates) store_live(to + i * d.hidden, saved[i], live);
    }
  }
  FASTRNN_FN void candidate(int64_t row, int64_t vector, const T* p, int64_t step, int64_t offset) const {
    constexpr int last = Cell::gates - 1;
    const int64_t unit = vector * L, g = rows.sorted(row);
    const int live = live_lanes<T>(d.hidden, unit);
    T* gates = first_gates(row, step) + unit;
    V saved[saved_slots];
    for (int i = 0; i < last; ++i) saved[i] = load_live(gates + i * d.hidden, live);
    const V x = load(product_of(vector, offset + row) + last * L), h = load(h_state[step % 2] + g * h_stride + unit);
    put_h(row, unit, Cell::forward_mix(x, load(p), saved, h, functions.unit(unit)), step);
    for (int i = last; i < Cell::saved; i += Cell::gates) store_live(gates + i * d.hidden, saved[i], live);
  }

  // A row's last state lies where its last step left it: no later step touched it.
  void finish() {
    const Range mine = share(rows.count, me.rank, me.team_size);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const int64_t b = rows.original(row), g = rows.sorted(row);
      const T* h = h_state[rows.length(row) % 2] + g * h_stride;
      for (int64_t j = 0; j < d.output; ++j) s.h_n[b * d.output + j] = h[j];
      if (!Cell::has_cell) continue;
      const T* c = c_state + g * hidden_stride;
      for (int64_t j = 0; j < d.hidden; ++j) s.c_n[b * d.hidden + j] = c[j];
    }
  }

  const Sequence<T>& s;
  const Dims& d;
  const Member& me;
  const ForwardPack<Cell, T> at;
  const typename Cell::Functions functions;
  const TeamRows rows;
  const int64_t h_stride, hidden_stride;
  Range units, second_panels;  // this member's panels of the gates, and of a step's second product
  T* h_state[2];  // by parity of the step: (B, stride), sorted rows
  T* c_state;
  T* between;  // (B, stride): what the second product of a step starts from
  T* step_saved;  // (B, saved, H): the step's gates when there is no tape and its second product needs them
  int64_t capacity;  // rows of a chunk
  T* products;  // (panels, capacity, width)
  T* input;  // (capacity, stride): rows of x that do not lie evenly
};

}  // namespace fastrnn::FASTRNN_ARCH

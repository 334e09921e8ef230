// The time loop of one layer and direction, backward. Step by step from the end: dh = dy + W_hh^T (gradients of the
// next step's gates), with the cell's pointwise stage applied to each tile as it leaves the registers. Then, for a
// chunk of steps at once while its gate gradients are in the cache, the products over time: dx, dW and db.
#pragma once

#include "cells/state.h"
#include "product.h"
#include "rows.h"

namespace fastrnn::FASTRNN_ARCH {

template <class Cell, class T> class BackwardPass {
  using V = Vec<T>;
  using Pack = BackwardPack<Cell, T>;
  static constexpr int L = lanes<T>, W = PlainPanel::width<T>, N = PlainPanel::vectors;
  static constexpr int saved_slots = Cell::saved > 0 ? Cell::saved : 1;
  static constexpr const T* null = nullptr;

  // A stretch of steps [low, high) and its rows, the last step's first: row k of the chunk.
  struct Chunk {
    int64_t low, high, rows;
    T* slots;   // (rows, slot_stride): gradients of the gates
    T* output;  // (rows, output_stride): gradients of a projection's output
  };

  // What a weight's gradient is the product of: `gates` blocks of `block` columns of A, and strips of `columns` values.
  struct Factor {
    enum Kind { input, hidden, reset, projected } kind;
    int64_t columns;
    int gates;
    int64_t block;
  };

 public:
  static int64_t scratch(const Dims& d, const ChunkRows& chunk, int direction_size) {
    Arena<T> arena{nullptr};
    buffers(d, chunk, direction_size, 0, arena, nullptr);
    return arena.used;
  }

  BackwardPass(const SequenceGradient<T>& sequence, const Member& member)
      : s(sequence), d(sequence.dims), me(member), at(sequence.dims),
        functions(functions_of<Cell>(sequence, sequence.pack + at.peepholes)),
        rows(sequence.batch, sequence.dims, sequence.reverse, member.team, member.teams),
        all(sequence.batch, sequence.dims, sequence.reverse, 0, 1), slot_stride(row_stride<T>(Cell::slots * d.hidden)),
        hidden_stride(row_stride<T>(d.hidden)), output_stride(row_stride<T>(d.output)) {
    Arena<T> arena{s.scratch};
    buffers(d, s.chunk, me.direction_size, me.direction_rank, arena, this);
    outputs = share(PlainPanel::count<T>(d.output), me.rank, me.team_size);
    units = share(PlainPanel::count<T>(d.hidden), me.rank, me.team_size);
  }

  void run() {
    begin();
    const int64_t steps = d.rows ? all.length(0) : 0;
    const T* next = nullptr;  // slots of the step after, sorted rows
    bool first = true;
    for (int64_t high = steps, parity = 0; high > 0; parity ^= 1) {
      Chunk chunk{high, high, 0, slots[parity], output_gradient[parity]};
      while (chunk.low > 0 && (chunk.low == high || chunk.rows + all.alive(chunk.low - 1) <= capacity)) {
        chunk.rows += all.alive(--chunk.low);
      }
      for (int64_t step = high - 1, k = 0; step >= chunk.low; --step) {
        T* now = chunk.slots + k * slot_stride;
        one_step(step, next, now, d.projected ? chunk.output + k * output_stride : nullptr);
        next = now;
        k += all.alive(step);
      }
      // The other parity's chunk is done with once every thread has come here.
      me.direction_barrier->wait();
      input_gradient(chunk);
      weight_gradients(chunk, first);
      bias_gradients(chunk, first);
      if constexpr (Cell::has_cell && Cell::Functions::chosen) peephole_gradients(chunk, first);
      first = false;
      high = chunk.low;
    }
    finish(next, first);
  }

 private:
  static void buffers(const Dims& d, const ChunkRows& chunk, int direction_size, int rank, Arena<T>& arena,
                      BackwardPass* pass) {
    const int64_t capacity = max(chunk.backward, d.rows);
    T *slots[2], *output[2];
    for (T*& p : slots) p = arena.take(capacity * row_stride<T>(Cell::slots * d.hidden));
    for (T*& p : output) p = d.projected ? arena.take(capacity * row_stride<T>(d.output)) : nullptr;
    T* carry = arena.take(d.rows * row_stride<T>(d.output));
    T* dc = Cell::has_cell ? arena.take(d.rows * row_stride<T>(d.hidden)) : nullptr;
    T* dx = arena.take(capacity * dx_stride(d));
    T* bias = arena.take(row_stride<T>(Cell::slots * d.hidden));
    T* peepholes = arena.take(3 * peephole_stride<Cell, T>(d));
    T* sums[4] = {};
    for_factors(d, [&](const Factor& f) {
      const int64_t apart = PlainPanel::count<T>(f.columns) - first_apart(d, capacity, f.columns);
      sums[f.kind] = arena.take(apart * f.gates * f.block * W);
    });
    T* strips = nullptr;
    for (int i = 0; i < direction_size; ++i) {
      T* strip = arena.take(capacity * W);
      if (i == rank) strips = strip;
    }
    if (!pass) return;
    pass->capacity = capacity;
    for (int i = 0; i < 2; ++i) pass->slots[i] = slots[i], pass->output_gradient[i] = output[i];
    pass->carry = carry;
    pass->dc_state = dc;
    pass->dx_chunk = dx;
    pass->bias = bias;
    pass->peepholes = peepholes;
    for (int i = 0; i < 4; ++i) pass->sums[i] = sums[i];
    pass->strip = strips;
  }

  // Whole panels: the product's tiles are stored as they are.
  static FASTRNN_FN int64_t dx_stride(const Dims& d) { return row_stride<T>(PlainPanel::count<T>(d.input) * W); }

  void begin() {
    const Range mine = share(rows.count, me.rank, me.team_size);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const int64_t b = rows.original(row), g = rows.sorted(row);
      set_row(carry + g * output_stride, output_stride, s.dh_n ? s.dh_n + b * d.output : null, d.output);
      if (Cell::has_cell) {
        set_row(dc_state + g * hidden_stride, hidden_stride, s.dc_n ? s.dc_n + b * d.hidden : null, d.hidden);
      }
    }
    if (s.dx.data && !rows.full() && !rows.packed())
      clear_padding(rows, d.steps, s.dx.row, s.dx.time, d.input, s.dx.data, me);
    me.team_barrier->wait();
  }

  FASTRNN_FN int64_t tape_row(int64_t t, int64_t b) const { return rows.number(t, b); }

  // h and c before a row's step, or null where they are zero.
  FASTRNN_FN const T* h_before(const TeamRows& r, int64_t row, int64_t step) const {
    const int64_t b = r.original(row);
    if (step > 0) return r.place(s.y, r.time(row, step - 1), b);
    return s.h0 ? s.h0 + b * d.output : nullptr;
  }
  FASTRNN_FN const T* c_before(const TeamRows& r, int64_t row, int64_t step) const {
    const int64_t b = r.original(row);
    if (step > 0) return s.cells + tape_row(r.time(row, step - 1), b) * d.hidden;
    return s.c0 ? s.c0 + b * d.hidden : nullptr;
  }
  FASTRNN_FN static V load_or_zero(const T* p, int64_t unit, int live) { return p ? load_live(p + unit, live) : V{}; }

  // The product `pack` (W_hh) ^T next for the rows that have a step after this one, and 0 for those that begin here:
  // apply(row, vector of units, value, does the row begin here?).
  template <class Apply> FASTRNN_FN void from_next_step(int64_t step, const T* next, Apply&& apply) {
    const int64_t count = rows.alive(step), continued = rows.alive(step + 1);
    const int64_t depth = Pack::hidden_gates * d.hidden;
    const auto expects = [&](int64_t row, int64_t vector, auto&& want)
                             FASTRNN_LAMBDA { expect(row, vector * L, step, want); };
    multiply_rows(depth, next, slot_stride, 0, continued, at.hidden, outputs, d.output, step, expects,
                  [&](int64_t row, int64_t vector, const T* c) FASTRNN_LAMBDA { apply(row, vector, load(c), false); });
    multiply_rows(0, next, 0, continued, count - continued, at.hidden, outputs, d.output, step, nullptr,
                  [&](int64_t row, int64_t vector, const T* c) FASTRNN_LAMBDA { apply(row, vector, load(c), true); });
  }

  // Rows row0 ... of the team, their A the rows of `a` by sorted row, times plain panels.
  template <class Expect, class Apply>
  FASTRNN_FN void multiply_rows(int64_t depth, const T* a, int64_t stride, int64_t row0, int64_t count, int64_t pack,
                                Range range, int64_t n, int64_t step, Expect&& expects, Apply&& apply) {
    if (count == 0) return;  // nor is there an `a`
    multiply_pointwise<PlainPanel>(Product<T>{.depth = depth,
                                              .a = a + rows.sorted(row0) * stride,
                                              .a_stride = rows.stride * stride,
                                              .rows = count,
                                              .panels = s.pack + pack,
                                              .init = s.pack + at.zeros,
                                              .range = range,
                                              .backwards = step % 2 == 1,
                                              .from = s.weights},
                                   row0, n, expects, apply);
  }

  FASTRNN_FN V output_of_step(int64_t row, int64_t unit, int live, V dh, bool begins, int64_t step) const {
    if (Cell::carries || begins) dh += load(carry + rows.sorted(row) * output_stride + unit);
    if (s.dy.data) {
      dh += load_live(rows.place(s.dy, rows.time(row, step), rows.original(row)) + unit, live);
    }
    return dh;
  }

  // What the pointwise stage of a vector of units will read from memory that no step before it touched.
  template <class Want> FASTRNN_FN void expect(int64_t row, int64_t unit, int64_t step, Want&& want) const {
    static_assert(Cell::saved + 3 <= Wanted::per_vector);
    const int64_t b = rows.original(row), t = rows.time(row, step);
    if (s.dy.data) want(rows.place(s.dy, t, b) + unit);
    if (d.projected) return;
    const T* kept = s.saved + tape_row(t, b) * Cell::saved * d.hidden + unit;
    for (int i = 0; i < Cell::saved; ++i) want(kept + i * d.hidden);
    if (Cell::carries || !Cell::has_cell) {
      if (const T* h = h_before(rows, row, step)) want(h + unit);
    }
    if (Cell::has_cell) {
      if (const T* c = c_before(rows, row, step)) want(c + unit);
    }
  }

  // slots, carry and dc of a vector of units, from the gradient of its h.
  FASTRNN_FN void pointwise(int64_t row, int64_t unit, V dh, int64_t step, T* now) {
    const int live = live_lanes<T>(d.hidden, unit);
    const int64_t g = rows.sorted(row), b = rows.original(row), t = rows.time(row, step);
    const T* kept = s.saved + tape_row(t, b) * Cell::saved * d.hidden + unit;
    T* out = now + g * slot_stride + unit;
    T* carried = carry + g * output_stride + unit;
    V saved[saved_slots], slot[Cell::slots];
    for (int i = 0; i < Cell::saved; ++i) saved[i] = load_live(kept + i * d.hidden, live);
    if constexpr (Cell::reset_first) {
      const V h = load_or_zero(h_before(rows, row, step), unit, live);
      store(carried, Cell::backward_mix(saved, h, dh, slot, functions.unit(unit)));
      store_live(out + d.hidden, slot[1], live);
      store_live(out + 2 * d.hidden, slot[2], live);
    } else {
      State<V> before{}, after{}, gradient{};
      gradient.h = dh;
      if constexpr (Cell::has_cell) {
        before.c = load_or_zero(c_before(rows, row, step), unit, live);
        after.c = load_live(s.cells + tape_row(t, b) * d.hidden + unit, live);
        gradient.c = load(dc_state + g * hidden_stride + unit);
      } else {
        after.h = load_live(rows.place(s.y, t, b) + unit, live);
      }
      if (Cell::carries) before.h = load_or_zero(h_before(rows, row, step), unit, live);
      Cell::backward(saved, before, after, gradient, slot, functions.unit(unit));
      for (int i = 0; i < Cell::slots; ++i) store_live(out + i * d.hidden, slot[i], live);
      if (Cell::carries) store(carried, gradient.h);
      if (Cell::has_cell) store(dc_state + g * hidden_stride + unit, gradient.c);
    }
  }

  void one_step(int64_t step, const T* next, T* now, T* output) {
    if (!d.projected) {
      from_next_step(step, next, [&](int64_t row, int64_t vector, V dh, bool begins) FASTRNN_LAMBDA {
        const int64_t unit = vector * L;
        dh = output_of_step(row, unit, live_lanes<T>(d.hidden, unit), dh, begins, step);
        pointwise(row, unit, dh, step, now);
      });
    } else {
      from_next_step(step, next, [&](int64_t row, int64_t vector, V dh, bool begins) FASTRNN_LAMBDA {
        const int64_t unit = vector * L;
        const int live = live_lanes<T>(d.output, unit);
        dh = output_of_step(row, unit, live, dh, begins, step);
        store(output + rows.sorted(row) * output_stride + unit, dh);
      });
      me.team_barrier->wait();
      multiply_rows(d.output, output, output_stride, 0, rows.alive(step), at.projection, units, d.hidden, step, nullptr,
                    [&](int64_t row, int64_t vector, const T* c)
                        FASTRNN_LAMBDA { pointwise(row, vector * L, load(c), step, now); });
    }
    me.team_barrier->wait();
    if constexpr (Cell::reset_first) {
      multiply_rows(d.hidden, now + 2 * d.hidden, slot_stride, 0, rows.alive(step), at.last, units, d.hidden, step,
                    nullptr, [&](int64_t row, int64_t vector, const T* c) FASTRNN_LAMBDA {
                      reset_gradient(row, vector * L, load(c), step, now);
                    });
      me.team_barrier->wait();
    }
  }

  FASTRNN_FN void reset_gradient(int64_t row, int64_t unit, V d_rh, int64_t step, T* now) {
    const int live = live_lanes<T>(d.hidden, unit);
    const int64_t g = rows.sorted(row);
    const T* kept = s.saved + tape_row(rows.time(row, step), rows.original(row)) * Cell::saved * d.hidden + unit;
    T* carried = carry + g * output_stride + unit;
    V saved[saved_slots], slot[Cell::slots];
    for (int i = 0; i < Cell::saved; i += Cell::gates) saved[i] = load_live(kept + i * d.hidden, live);
    const V h = load_or_zero(h_before(rows, row, step), unit, live);
    store(carried, load(carried) + Cell::backward_reset(saved, h, d_rh, slot, functions.unit(unit)));
    store_live(now + g * slot_stride + unit, slot[0], live);
  }

  // Calls visit(row of the chunk, sorted row, step) for rows k of the chunk in order.
  template <class Visit> FASTRNN_FN void for_chunk_rows(const Chunk& chunk, Range k, Visit&& visit) const {
    int64_t offset = 0;
    for (int64_t step = chunk.high - 1; step >= chunk.low && offset < k.end; --step) {
      const int64_t n = all.alive(step);
      for (int64_t g = max(0, k.begin - offset); g < min(n, k.end - offset); ++g) visit(offset + g, g, step);
      offset += n;
    }
  }

  // dx = W_ih^T slots, shared out by columns where there are enough of them, else by rows.
  void input_gradient(const Chunk& chunk) {
    if (!s.dx.data) return;
    const int64_t panels = PlainPanel::count<T>(d.input), stride = dx_stride(d);
    const bool by_columns = panels >= 2 * me.direction_size;
    const Range range = by_columns ? share(panels, me.direction_rank, me.direction_size) : Range{0, panels};
    const Range k = by_columns ? Range{0, chunk.rows} : share(chunk.rows, me.direction_rank, me.direction_size);
    const T* a = chunk.slots + k.begin * slot_stride + (Cell::slots - Cell::gates) * d.hidden;
    T* out = dx_chunk + k.begin * stride;
    multiply<PlainPanel>(
        Product<T>{.depth = Cell::gates * d.hidden,
                   .a = a,
                   .a_stride = slot_stride,
                   .rows = k.end - k.begin,
                   .panels = s.pack + at.input,
                   .init = s.pack + at.zeros,
                   .range = range,
                   .side_by_side = false,
                   .from = s.weights},
        [&](int64_t row, int64_t, int64_t panel, int64_t) {
          return Target<T>{out + row * stride + panel * W, stride, W};
        },
        [](auto&&...) {});
    const int64_t first = range.begin * W, last = min(range.end * W, d.input);
    for_chunk_rows(chunk, k, [&](int64_t row, int64_t g, int64_t step) {
      const int64_t t = all.time(g, step), b = all.original(g);
      const T* from = dx_chunk + row * stride;
      T* to = all.place(s.dx, t, b);
      if (s.dropout.active) {
        copy_dropped(s.dropout, dropout_number(s.dropout, d.rows, t, b) + first, from + first, 1, last - first,
                     to + first);
      } else {
        for (int64_t j = first; j < last; ++j) to[j] = from[j];
      }
    });
  }

  // Work is shared out as (strip of columns, gate); each element of a gradient belongs to one thread for the whole call
  // and is summed in the order of the chunks' rows. Until the last chunk the sums of a strip lie together: the rows of
  // a gradient are often a multiple of a page apart, where writing a tile takes the caches longer.
  void weight_gradients(const Chunk& chunk, bool first) {
    for_factors(d, [&](const Factor& f) {
      const bool projected = f.kind == Factor::projected;
      const int64_t stride = projected ? output_stride : slot_stride;
      for_items(f, [&](int64_t panel, int gate, bool new_strip) {
        if (new_strip) fill_strip(f, chunk, panel);
        const T* a = projected ? chunk.output : chunk.slots + slot_of(f, gate) * d.hidden;
        Matrix<const T*> init{s.pack + at.zeros, 0};
        if (!first) init = {sums_of(f, panel, gate), W};
        Matrix<T*> c{gradient_of(f, panel, gate), f.columns};
        if (chunk.low > 0 || (panel + 1) * W > f.columns) c = {sums_of(f, panel, gate), W};
        multiply_columns<N, T>(chunk.rows, {a, stride}, f.block, strip, init, c);
      });
    });
  }

  // Of a call in one chunk only a strip that is wider than the gradient has sums apart from it.
  static FASTRNN_FN int64_t first_apart(const Dims& d, int64_t capacity, int64_t columns) {
    return d.steps * d.rows > capacity ? 0 : columns / W;
  }
  T* sums_of(const Factor& f, int64_t panel, int gate) const {
    return sums[f.kind] + ((panel - first_apart(d, capacity, f.columns)) * f.gates + gate) * f.block * W;
  }

  int slot_of(const Factor& f, int gate) const {
    if (f.kind == Factor::input) return Cell::input_slot[gate];
    return Cell::hidden_slot[f.kind == Factor::reset ? Cell::gates - 1 : gate];
  }

  T* gradient_of(const Factor& f, int64_t panel, int gate) const {
    T* const weights[]{s.w_ih, s.w_hh, s.w_hh + Pack::hidden_gates * d.hidden * d.output, s.w_hr};
    return weights[f.kind] + gate * f.block * f.columns + panel * W;
  }

  template <class Visit> static void for_factors(const Dims& d, Visit&& visit) {
    visit(Factor{Factor::input, d.input, Cell::gates, d.hidden});
    visit(Factor{Factor::hidden, d.output, Pack::hidden_gates, d.hidden});
    if (Cell::reset_first) visit(Factor{Factor::reset, d.output, 1, d.hidden});
    if (d.projected) visit(Factor{Factor::projected, d.hidden, 1, d.output});
  }

  // This thread's (panel, gate) items of a factor.
  template <class Visit> void for_items(const Factor& f, Visit&& visit) const {
    const Range mine = share(PlainPanel::count<T>(f.columns) * f.gates, me.direction_rank, me.direction_size);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      visit(i / f.gates, static_cast<int>(i % f.gates), i == mine.begin || i % f.gates == 0);
    }
  }

  // A row of the next strip.
  static FASTRNN_FN void fetch_strip(const T* p) {
    for (int64_t j = 0; j < W; j += L) fetch_for_later(p + j);
  }

  // n values of a strip's row, or zeros where `from` is null.
  static FASTRNN_FN void set_strip(T* to, const T* from, int64_t n) {
    if (n < W) return set_row(to, n, from, n);
    for (int64_t j = 0; j < W; j += L) store(to + j, from ? load(from + j) : V{});
  }

  // Columns panel * W ... of a factor, for the chunk's rows: (rows, W), 0 past the last column.
  void fill_strip(const Factor& f, const Chunk& chunk, int64_t panel) {
    const int64_t first = panel * W, n = min(W, f.columns - first);
    for_chunk_rows(chunk, {0, chunk.rows}, [&](int64_t k, int64_t g, int64_t step) {
      T* to = strip + k * W;
      const int64_t t = all.time(g, step), b = all.original(g);
      const T* kept = s.saved + tape_row(t, b) * Cell::saved * d.hidden;
      const T* h = h_before(all, g, step);
      switch (f.kind) {
        case Factor::input:
          fetch_strip(all.place(s.x, t, b) + (first + W) * s.x.unit);
          if (s.x.unit == 1 && !s.dropout.active) {
            set_strip(to, all.place(s.x, t, b) + first, n);
          } else {
            copy_input(s.x, s.dropout, all, t, b, first, n, to);
          }
          break;
        case Factor::hidden:
          if (h) fetch_strip(h + first + W);
          set_strip(to, h ? h + first : null, n);
          break;
        case Factor::reset:
          for (int64_t j = 0; j < n; ++j) to[j] = h ? kept[first + j] * h[first + j] : T(0);
          break;
        case Factor::projected:
          if constexpr (Cell::has_cell) {
            for (int64_t j = 0; j < n; j += L) {
              const int live = live_lanes<T>(d.hidden, first + j);
              V gate[Cell::gates];
              for (int i = 0; i < Cell::gates; ++i) gate[i] = load_live(kept + i * d.hidden + first + j, live);
              const V c = load_live(s.cells + tape_row(t, b) * d.hidden + first + j, live);
              store(to + j, Cell::output(gate, c, functions.unit(first + j)));
            }
          }
          break;
      }
      for (int64_t j = n; j < W; ++j) to[j] = 0;
    });
  }

  // Sums of each slot's columns, this thread's share of them.
  void bias_gradients(const Chunk& chunk, bool first) {
    if (!s.b_ih) return;
    const Range mine = share(ceil_div(Cell::slots * d.hidden, L), me.direction_rank, me.direction_size);
    constexpr int64_t block = 4;
    for (int64_t v = mine.begin; v < mine.end; v += block) {
      const int64_t n = min(block, mine.end - v);
      V sum[block];
      for (int64_t i = 0; i < n; ++i) sum[i] = first ? V{} : load(bias + (v + i) * L);
      for (int64_t k = 0; k < chunk.rows; ++k) {
        for (int64_t i = 0; i < n; ++i) sum[i] += load(chunk.slots + k * slot_stride + (v + i) * L);
      }
      for (int64_t i = 0; i < n; ++i) store(bias + (v + i) * L, sum[i]);
    }
  }

  // Sums of i's and f's slots times the c before the step, and of o's times that after, this thread's share of the
  // units.
  void peephole_gradients(const Chunk& chunk, bool first) {
    if (!s.w_peephole) return;
    const int64_t stride = peephole_stride<Cell, T>(d);
    const Range mine = share(stride / L, me.direction_rank, me.direction_size);
    for (int64_t v = mine.begin; v < mine.end; ++v) {
      const int64_t unit = v * L;
      const int live = live_lanes<T>(d.hidden, unit);
      V sum[3];
      for (int i = 0; i < 3; ++i) sum[i] = first ? V{} : load(peepholes + i * stride + unit);
      for_chunk_rows(chunk, {0, chunk.rows}, [&](int64_t k, int64_t g, int64_t step) {
        const T* slot = chunk.slots + k * slot_stride + unit;
        const V before = load_or_zero(c_before(all, g, step), unit, live);
        const T* after = s.cells + tape_row(all.time(g, step), all.original(g)) * d.hidden;
        sum[0] = fma(load_live(slot, live), before, sum[0]);
        sum[1] = fma(load_live(slot + d.hidden, live), before, sum[1]);
        sum[2] = fma(load_live(slot + 3 * d.hidden, live), load_live(after + unit, live), sum[2]);
      });
      for (int i = 0; i < 3; ++i) store(peepholes + i * stride + unit, sum[i]);
    }
  }

  void finish(const T* next, bool no_steps) {
    const int64_t H = d.hidden;
    if (s.dh0 && !no_steps) {
      multiply_rows(Pack::hidden_gates * H, next, slot_stride, 0, rows.alive(0), at.hidden, outputs, d.output, 0,
                    nullptr, [&](int64_t row, int64_t vector, const T* c) FASTRNN_LAMBDA {
                      const int64_t unit = vector * L;
                      V dh = load(c);
                      if (Cell::carries) dh += load(carry + rows.sorted(row) * output_stride + unit);
                      store_live(s.dh0 + rows.original(row) * d.output + unit, dh, live_lanes<T>(d.output, unit));
                    });
    }
    const Range mine = share(rows.count, me.rank, me.team_size);
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const int64_t g = rows.sorted(row), b = rows.original(row);
      if (s.dh0 && rows.length(row) == 0) set_row(s.dh0 + b * d.output, d.output, carry + g * output_stride, d.output);
      if (Cell::has_cell) set_row(s.dc0 + b * H, H, dc_state + g * hidden_stride, H);
    }
    for_factors(d, [&](const Factor& f) {
      for_items(f, [&](int64_t panel, int gate, bool) {
        const int64_t live = min(W, f.columns - panel * W);
        if (!no_steps && live == W) return;
        T* to = gradient_of(f, panel, gate);
        for (int64_t r = 0; r < f.block; ++r, to += f.columns) {
          set_row(to, live, no_steps ? null : sums_of(f, panel, gate) + r * W, live);
        }
      });
    });
    if (!s.b_ih && !s.w_peephole) return;
    me.direction_barrier->wait();
    if (me.direction_rank != 0) return;
    if (s.w_peephole) {
      const int64_t stride = peephole_stride<Cell, T>(d);
      for (int i = 0; i < 3; ++i) set_row(s.w_peephole + i * H, H, no_steps ? null : peepholes + i * stride, H);
    }
    if (!s.b_ih) return;
    for (int gate = 0; gate < Cell::gates; ++gate) {
      set_row(s.b_ih + gate * H, H, no_steps ? null : bias + Cell::input_slot[gate] * H, H);
      set_row(s.b_hh + gate * H, H, no_steps ? null : bias + Cell::hidden_slot[gate] * H, H);
    }
  }

  const SequenceGradient<T>& s;
  const Dims& d;
  const Member& me;
  const Pack at;
  const typename Cell::Functions functions;
  const TeamRows rows;  // of the team
  const TeamRows all;   // of the direction
  const int64_t slot_stride, hidden_stride, output_stride;
  Range outputs, units;  // this member's panels of dh, and of a step's second product
  int64_t capacity;      // rows of a chunk
  T* slots[2];
  T* output_gradient[2];
  T* carry;     // (B, output_stride), sorted rows: what of dh does not come through W_hh; at first dh_n
  T* dc_state;  // (B, hidden_stride)
  T* dx_chunk;  // (capacity, stride)
  T* bias;      // (slots * H): sums so far
  T* peepholes;  // (3, stride): likewise
  T* sums[4];   // by kind of factor, (panels, gates, block, W): of strips, where they are not in the gradient
  T* strip;     // (capacity, W), this thread's own
};

}  // namespace fastrnn::FASTRNN_ARCH

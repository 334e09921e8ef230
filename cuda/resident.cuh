// The ways with W_hh on chip: all steps in one kernel, in which each block keeps its part of W_hh in shared memory from
// the first step to the last. The rows of the batch are dealt out to teams of blocks, and within a team the hidden
// units to its blocks. A step is the product of a block's part with the vectors of all, the pointwise stage of its
// own units, and the exchange (exchange.cuh) of what that gave: h in a forward step, gradients of gates in a backward
// step. A cell with reset_first has both twice.
//
// Forward, a block has the rows of W_hh that make its units' gates; backward, the columns that make its units' dh,
// which are multiplied with the gradients of all gates.
#pragma once

#include "backward_stage.cuh"
#include "exchange.cuh"
#include "forward_stage.cuh"

namespace fastrnn::cuda {

inline constexpr int most_threads = 256;  // of a block

// What a block has of a layer: rows of the batch and hidden units.
struct Part {
  Team team;
  int first_row, rows, first_unit, units;

  FASTRNN_FN Part(const Team& team_, int64_t all_rows, int64_t all_units)
      : team(team_), first_row(team.number() * team.rows), rows(least(team.rows, all_rows - first_row)),
        first_unit(team.rank() * team.units), units(least(team.units, all_units - first_unit)) {}

  FASTRNN_FN int row(int64_t row_) const { return static_cast<int>(row_) - first_row; }
  FASTRNN_FN int unit(int64_t unit_) const { return static_cast<int>(unit_) - first_unit; }
  // f(row, unit) for all, each time by the same threads.
  template <class F> FASTRNN_FN void for_each(F f) const {
    for (int i = static_cast<int>(threadIdx.x); i < rows * units; i += static_cast<int>(blockDim.x)) {
      f(int64_t{first_row + i / units}, int64_t{first_unit + i % units});
    }
  }

 private:
  static FASTRNN_FN int least(int a, int64_t b) { return b < a ? static_cast<int>(b) : a; }
};

// Numbers of a block's rows and units in its shared memory, `count` of each.
template <class A> struct Own {
  A* data;
  int size;  // rows times units

  FASTRNN_HOST_DEVICE Own(const Team& team, int count, Carver& memory)
      : data(memory.take<A>(int64_t{count} * team.rows * team.units)), size(team.rows * team.units) {}
  FASTRNN_FN A& at(const Part& part, int64_t row, int64_t unit, int i = 0) const {
    return data[i * size + part.row(row) * part.team.units + part.unit(unit)];
  }
};

template <class A> FASTRNN_HOST_DEVICE int64_t size(const Sums<A>& sums) {
  return int64_t{sums.parts} * sums.vectors * sums.stride;
}

// ----------------------------------------------------------------------------------------------------------- forward

// What a block has in shared memory.
template <class Cell, class T, class Exchange> struct ForwardMemory {
  using A = Computed<T>;
  static constexpr int step_gates = Cell::gates - Cell::reset_first, second = Cell::reset_first;

  ResidentMatrix<T> gates, last;  // the last gate's with reset_first
  Exchange hidden, reset;  // h and, with reset_first, r h
  Sums<A> sums, last_sums;  // one after the other in the same memory
  Own<A> x, c, kept;
  Own<T> h;

  FASTRNN_HOST_DEVICE ForwardMemory(const Team& team, int64_t H, int threads, const ExchangeMemory<T>& first_exchange,
                                    const ExchangeMemory<T>& second_exchange, Carver& memory)
      : gates(step_gates * team.units, H, team.tf32, memory), last(second * team.units, second * H, team.tf32, memory),
        hidden(team, H, team.units, first_exchange, memory),
        reset(team, second * H, team.units, second_exchange, memory), sums(gates.sums(threads, team.rows)),
        last_sums(last.sums(threads, team.rows)), x(team, Cell::gates, memory), c(team, Cell::has_cell, memory),
        kept(team, second * Cell::gates, memory), h(team, 1, memory) {
    const int64_t sizes[] = {size(sums), second * size(last_sums)};
    sums.data = last_sums.data = memory.take<A>(sizes[0] < sizes[1] ? sizes[1] : sizes[0]);
  }
};

template <class Cell, class T, class Exchange> struct ForwardBlock : ForwardStep<T> {
  using A = Computed<T>;
  using Base = ForwardStep<T>;
  using Base::step, Base::rows, Base::y;
  Part part;
  ForwardMemory<Cell, T, Exchange> own;

  FASTRNN_FN ForwardBlock(const Base& s, const Team& team, const ExchangeMemory<T>& first,
                          const ExchangeMemory<T>& second, Carver& memory)
      : Base(s), part(team, s.rows.count, s.hidden),
        own(team, s.hidden, static_cast<int>(blockDim.x), first, second, memory) {
    Base::c = {own.c.data, team.units, part.first_row, part.first_unit};
  }

  // For the stages:
  FASTRNN_FN A x_of(int64_t row, int64_t, int, int gate, int64_t unit) const { return own.x.at(part, row, unit, gate); }
  FASTRNN_FN A p_of(int64_t row, int gate, int64_t unit) const {
    return own.sums.at(part.row(row), gate * part.team.units + part.unit(unit));
  }
  FASTRNN_FN A p2_of(int64_t row, int64_t unit) const { return own.last_sums.at(part.row(row), part.unit(unit)); }
  FASTRNN_FN A h_of(int64_t row, int64_t unit) const { return widen(own.h.at(part, row, unit)); }
  FASTRNN_FN A& kept_at(int64_t row, int i, int64_t unit) const { return own.kept.at(part, row, unit, i); }
  FASTRNN_FN void put_h(int64_t row, int64_t time, int64_t unit, A value) const {
    const T rounded = narrow<T>(value);
    own.hidden.put(part.row(row), static_cast<int>(unit), rounded);
    own.h.at(part, row, unit) = rounded;
    y.data[time * y.time + row * y.row + unit] = rounded;
  }
  FASTRNN_FN void put_between(int64_t row, int64_t unit, A value) const {
    own.reset.put(part.row(row), static_cast<int>(unit), narrow<T>(value));
  }

  // Those of W_hh's rows that make so many gates of the block's units.
  FASTRNN_FN void load(const ResidentMatrix<T>& matrix, const T* w_hh, int gates) const {
    const int64_t H = this->hidden;
    matrix.load(false, [&](int row, int column) {
      const int gate = row / part.team.units, unit = row % part.team.units;
      return gate < gates && unit < part.units && column < H ? w_hh[(gate * H + part.first_unit + unit) * H + column]
                                                             : T{};
    });
  }
  // Starts to fetch the products with W_ih that the next stage wants.
  FASTRNN_FN void fetch() const {
    part.for_each([&](int64_t row, int64_t unit) {
      if (!rows.alive(row, step)) return;
      const int64_t time = rows.time(row, step);
      for (int i = 0; i < Cell::gates; ++i) {
        copy_async(&own.x.at(part, row, unit, i), this->x_at(row, time, Cell::gates, i, unit));
      }
    });
  }
  template <class Stage> FASTRNN_FN void stage() const {
    part.for_each([&](int64_t row, int64_t unit) { Stage::run(*this, row, unit); });
  }
};

// Steps from s.step up to `end`, from s.h, and from and to s.c; h goes to h_after, which is not s.h.
template <class Cell, class T, template <class> class Exchange>
__global__ void __launch_bounds__(most_threads, 1)
    resident_forward(ForwardStep<T> s, int64_t end, const T* w_hh, T* h_after, Team team, ExchangeMemory<T> first,
                     ExchangeMemory<T> second) {
  Carver memory(shared_memory(), 16);
  ForwardBlock<Cell, T, Exchange<T>> block(s, team, first, second, memory);
  auto& own = block.own;
  const Part& part = block.part;
  block.load(own.gates, w_hh, own.step_gates);
  if constexpr (Cell::reset_first) {
    block.load(own.last, w_hh + own.step_gates * s.hidden * s.hidden, 1);
    own.reset.begin();
  }
  own.hidden.begin();
  part.for_each([&](int64_t row, int64_t unit) {
    const T h = s.h.at(row, unit);
    own.h.at(part, row, unit) = h;
    own.hidden.put(part.row(row), static_cast<int>(unit), h);
    if constexpr (Cell::has_cell) block.c.at(row, unit) = s.c.at(row, unit);
  });
  own.hidden.publish();
  block.fetch();
  own.hidden.await();
  while (block.step < end) {
    own.gates.multiply([&](int row) { return own.hidden.tile(row); }, own.sums);
    wait_for_copies();
    __syncthreads();
    if constexpr (Cell::reset_first) {
      block.template stage<ForwardReset<Cell>>();
      own.reset.publish();
      own.reset.await();
      own.last.multiply([&](int row) { return own.reset.tile(row); }, own.last_sums);
      __syncthreads();
      block.template stage<ForwardMix<Cell>>();
    } else {
      block.template stage<ForwardGates<Cell, false>>();
    }
    own.hidden.publish();
    if (++block.step < end) block.fetch();
    own.hidden.await();
  }
  part.for_each([&](int64_t row, int64_t unit) {
    h_after[row * s.hidden + unit] = own.h.at(part, row, unit);
    if constexpr (Cell::has_cell) s.c.at(row, unit) = block.c.at(row, unit);
  });
}

// ---------------------------------------------------------------------------------------------------------- backward

template <class Cell, class T, class Exchange> struct BackwardMemory {
  using A = Computed<T>;
  static constexpr int step_gates = Cell::gates - Cell::reset_first, second = Cell::reset_first;
  static constexpr int c_after = saved_values<Cell>, c_before = c_after + 1;  // among what is fetched
  static constexpr int fetched_values = saved_values<Cell> + 2 * Cell::has_cell;

  ResidentMatrix<T> gates, last;  // transposed
  Exchange slots, last_slot;  // gradients of gates, each unit's together
  Sums<A> sums, last_sums;  // one after the other in the same memory
  Own<A> fetched, carried, dc;

  FASTRNN_HOST_DEVICE BackwardMemory(const Team& team, int64_t H, int threads, const ExchangeMemory<T>& first_exchange,
                                     const ExchangeMemory<T>& second_exchange, Carver& memory)
      : gates(team.units, step_gates * H, team.tf32, memory), last(second * team.units, second * H, team.tf32, memory),
        slots(team, step_gates * H, step_gates * team.units, first_exchange, memory),
        last_slot(team, second * H, team.units, second_exchange, memory), sums(gates.sums(threads, team.rows)),
        last_sums(last.sums(threads, team.rows)), fetched(team, fetched_values, memory), carried(team, 1, memory),
        dc(team, Cell::has_cell, memory) {
    const int64_t sizes[] = {size(sums), second * size(last_sums)};
    sums.data = last_sums.data = memory.take<A>(sizes[0] < sizes[1] ? sizes[1] : sizes[0]);
  }
};

template <class Cell, class T, class Exchange> struct BackwardBlock : BackwardStep<T> {
  using A = Computed<T>;
  using Base = BackwardStep<T>;
  using Base::step, Base::rows;
  using Memory = BackwardMemory<Cell, T, Exchange>;
  Part part;
  Memory own;

  FASTRNN_FN BackwardBlock(const Base& s, const Team& team, const ExchangeMemory<T>& first,
                           const ExchangeMemory<T>& second, Carver& memory)
      : Base(s), part(team, s.rows.count, s.hidden),
        own(team, s.hidden, static_cast<int>(blockDim.x), first, second, memory) {
    Base::carried = {own.carried.data, team.units, part.first_row, part.first_unit};
    Base::dc = {own.dc.data, team.units, part.first_row, part.first_unit};
  }

  // For the stages:
  FASTRNN_FN A product_of(int64_t row, int64_t unit) const { return own.sums.at(part.row(row), part.unit(unit)); }
  FASTRNN_FN A d_hidden_of(int64_t row, int64_t unit) const { return own.last_sums.at(part.row(row), part.unit(unit)); }
  FASTRNN_FN A saved_of(int64_t row, int64_t, int, int i, int64_t unit) const {
    return own.fetched.at(part, row, unit, i);
  }
  FASTRNN_FN A c_before(int64_t row, int64_t unit) const {
    return step > 0 ? own.fetched.at(part, row, unit, Memory::c_before) : Base::c_before(row, unit);
  }
  FASTRNN_FN A c_after(int64_t row, int64_t, int64_t unit) const {
    return own.fetched.at(part, row, unit, Memory::c_after);
  }
  template <class> FASTRNN_FN void put_slot(int64_t row, int64_t time, int slot, int64_t unit, A value) const {
    constexpr SlotOrder<Cell> order = slot_order<Cell>;
    const int place = order.at[slot];
    const T d = narrow<T>(value);
    if (place < Memory::step_gates) {
      own.slots.put(part.row(row), static_cast<int>(unit) * Memory::step_gates + place, d);
    } else if (Cell::reset_first) {
      own.last_slot.put(part.row(row), static_cast<int>(unit), d);
    }
    *this->slot_at(row, time, Cell::slots, place, unit) = d;
  }

  // The columns of so many gates' rows of W_hh that are the block's units', as rows.
  FASTRNN_FN void load(const ResidentMatrix<T>& matrix, const T* w_hh, int gates) const {
    const int64_t H = this->hidden;
    matrix.load(true, [&](int row, int place) {
      const int gate = place % gates, unit = place / gates;
      return row < part.units && unit < H ? w_hh[(gate * H + unit) * H + part.first_unit + row] : T{};
    });
  }
  // Starts to fetch what the next stage wants of the tape, and brings nearer what does not go in words.
  FASTRNN_FN void fetch() const {
    part.for_each([&](int64_t row, int64_t unit) {
      if (!rows.alive(row, step)) return;
      const int64_t time = rows.time(row, step);
      for (int i = 0; i < saved_values<Cell>; ++i) {
        copy_async(&own.fetched.at(part, row, unit, i), this->saved_at(row, time, saved_values<Cell>, i, unit));
      }
      if constexpr (Cell::has_cell) {
        copy_async(&own.fetched.at(part, row, unit, Memory::c_after), this->cell_at(row, time, unit));
        if (step > 0) {
          copy_async(&own.fetched.at(part, row, unit, Memory::c_before),
                     this->cell_at(row, rows.time(row, step - 1), unit));
        }
      }
      if (this->dy.data) prefetch(this->dy.data + time * this->dy.time + row * this->dy.row + unit);
      if constexpr (Cell::carries) {
        if (step > 0) prefetch(this->y.data + rows.time(row, step - 1) * this->y.time + row * this->y.row + unit);
      }
    });
  }
  template <class Stage> FASTRNN_FN void stage() const {
    part.for_each([&](int64_t row, int64_t unit) { Stage::run(*this, row, unit); });
  }
};

// All steps, from the last to the first, dh0 and dc0.
template <class Cell, class T, template <class> class Exchange>
__global__ void __launch_bounds__(most_threads, 1)
    resident_backward(BackwardStep<T> s, const T* w_hh, Team team, ExchangeMemory<T> first, ExchangeMemory<T> second) {
  Carver memory(shared_memory(), 16);
  BackwardBlock<Cell, T, Exchange<T>> block(s, team, first, second, memory);
  auto& own = block.own;
  block.load(own.gates, w_hh, own.step_gates);
  if constexpr (Cell::reset_first) {
    block.load(own.last, w_hh + own.step_gates * s.hidden * s.hidden, 1);
    own.last_slot.begin();
  }
  block.template stage<BackwardBegin<Cell>>();
  block.step = s.rows.steps - 1;
  if (block.step >= 0) block.fetch();
  own.slots.begin();
  while (block.step >= 0) {
    wait_for_copies();
    if constexpr (Cell::reset_first) {
      block.template stage<BackwardMix<Cell>>();
      own.last_slot.publish();
      own.last_slot.await();
      own.last.multiply([&](int row) { return own.last_slot.tile(row); }, own.last_sums);
      __syncthreads();
      block.template stage<BackwardReset<Cell>>();
    } else {
      block.template stage<BackwardGates<Cell, false>>();
    }
    own.slots.publish();
    if (--block.step >= 0) block.fetch();
    own.slots.await();
    own.gates.multiply([&](int row) { return own.slots.tile(row); }, own.sums);
    block.has_product = true;
    __syncthreads();
  }
  block.template stage<BackwardFinish<Cell>>();
}

// ----------------------------------------------------------------------------------------------------- the host's side

inline Team team(const Partition& how) { return {how.blocks, how.rows, how.units, how.tf32}; }

template <class Memory> size_t resident_bytes(const Partition& how, int64_t hidden) {
  Carver memory(nullptr, 16);
  static_cast<void>(Memory(team(how), hidden, how.threads, {}, {}, memory));
  return memory.used();
}

// Of shared memory that a block needs.
template <class Cell, class T> size_t resident_bytes(const Partition& how, int64_t hidden, bool backward) {
  if (how.way == Way::grid) {
    return backward ? resident_bytes<BackwardMemory<Cell, T, GridExchange<T>>>(how, hidden)
                    : resident_bytes<ForwardMemory<Cell, T, GridExchange<T>>>(how, hidden);
  }
  return backward ? resident_bytes<BackwardMemory<Cell, T, ClusterExchange<T>>>(how, hidden)
                  : resident_bytes<ForwardMemory<Cell, T, ClusterExchange<T>>>(how, hidden);
}

inline Shape resident_shape(const Partition& how, int64_t rows, size_t shared_bytes) {
  const int64_t teams = (rows + how.rows - 1) / how.rows;
  return {static_cast<unsigned>(teams * how.blocks), static_cast<unsigned>(how.threads), shared_bytes,
          how.way == Way::cluster ? static_cast<unsigned>(how.blocks) : 1, how.way == Way::grid};
}

// The exchanges of a layer's steps in the device's memory: the second one where a cell has two a step.
template <class T> struct Exchanges {
  int64_t columns[2];
  ExchangeMemory<T> memory[2];

  Exchanges(int64_t rows, int64_t first, int64_t second, Carver& carver)
      : columns{first, second},
        memory{exchange_memory<T>(rows, first, carver), exchange_memory<T>(rows, second, carver)} {}

  void start(const Partition& how, int64_t rows, Stream stream) const {
    const auto teams = static_cast<int>((rows + how.rows - 1) / how.rows);
    for (int i = 0; i < 2; ++i) clear(memory[i], teams, team(how), columns[i], stream);
  }
};

template <class Cell, class T>
void launch_resident(const ForwardStep<T>& s, const Partition& how, const Exchanges<T>& exchanges, int64_t end,
                     const T* w_hh, T* h_after, Stream stream) {
  const Shape shape = resident_shape(how, s.rows.count, resident_bytes<Cell, T>(how, s.hidden, false));
  auto* kernel = &resident_forward<Cell, T, ClusterExchange>;
  if (how.way == Way::grid) {
    exchanges.start(how, s.rows.count, stream);
    kernel = &resident_forward<Cell, T, GridExchange>;
  }
  launch(shape, stream, kernel, s, end, w_hh, h_after, team(how), exchanges.memory[0], exchanges.memory[1]);
}
template <class Cell, class T>
void launch_resident(const BackwardStep<T>& s, const Partition& how, const Exchanges<T>& exchanges, const T* w_hh,
                     Stream stream) {
  const Shape shape = resident_shape(how, s.rows.count, resident_bytes<Cell, T>(how, s.hidden, true));
  auto* kernel = &resident_backward<Cell, T, ClusterExchange>;
  if (how.way == Way::grid) {
    exchanges.start(how, s.rows.count, stream);
    kernel = &resident_backward<Cell, T, GridExchange>;
  }
  launch(shape, stream, kernel, s, w_hh, team(how), exchanges.memory[0], exchanges.memory[1]);
}

}  // namespace fastrnn::cuda

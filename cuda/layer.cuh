// One layer and direction: products over all time, and the steps one after the other, or all in one kernel.
#pragma once

#include "backward_stage.cuh"
#include "carver.h"
#include "forward_stage.cuh"
#include "resident.cuh"

namespace fastrnn::cuda {

// The stage of an LSTM's projection exists for no other cell.
template <class Cell> constexpr bool can_project = Cell::has_cell;

template <class Cell, class T> class LayerForward {
  using A = Computed<T>;
  static constexpr int G = Cell::gates;
  static constexpr int step_gates = G - Cell::reset_first;  // of a step's first product
  static constexpr int64_t chunk_rows = 8192;  // of W_ih x at once: enough for the device, and not T times the batch

 public:
  LayerForward(const Sequence& sequence, std::byte* workspace) : LayerForward(sequence, Carver(workspace)) {}

  void run(Stream stream, Products& multiply) const {
    ForwardStep<T> step = parameters();
    launch_stage<ForwardBegin<Cell>>(step, d.hidden, stream);
    T* h_after = h_[1];
    while (step.step < d.steps) {
      step.first_time = input_product(step.step, multiply);
      const int64_t end = std::min(step.step + chunk_, d.steps);
      if (s.how.way != Way::step_by_step) {
        launch_resident<Cell, T>(step, s.how, exchanges_, end, static_cast<const T*>(s.weights.w_hh), h_after, stream);
        std::swap(step.h.data, h_after);
        step.step = end;
      }
      for (; step.step < end; ++step.step) {
        multiply(hidden_product(h_[0], d.output, s.weights.w_hh, step_gates * d.hidden, p_));
        stage(step, stream, multiply);
      }
    }
    launch_stage<ForwardFinish<Cell>>(step, d.hidden, stream);
  }

  size_t bytes;

 private:
  LayerForward(const Sequence& sequence, Carver memory)
      : s(sequence), d(sequence.dims),
        exchanges_(d.rows, d.projected ? 0 : d.hidden, Cell::reset_first * d.hidden, memory) {
    // A reverse direction's rows of different lengths are at different times in the same step.
    const bool whole = s.reverse && s.lengths;
    chunk_ = whole ? d.steps
                   : std::clamp<int64_t>(chunk_rows / std::max<int64_t>(d.rows, 1), 1, std::max<int64_t>(d.steps, 1));
    x_ = memory.take<A>(chunk_ * d.rows * G * d.hidden);
    p_ = memory.take<A>(d.rows * step_gates * d.hidden);
    p2_ = second() ? memory.take<A>(d.rows * d.hidden) : nullptr;
    between_ = second() ? memory.take<T>(d.rows * d.hidden) : nullptr;
    kept_ = Cell::reset_first ? memory.take<A>(d.rows * G * d.hidden) : nullptr;
    for (T*& h : h_) h = memory.take<T>(d.rows * d.output);
    c_ = Cell::has_cell ? memory.take<A>(d.rows * d.hidden) : nullptr;
    bytes = memory.used();
  }

  bool second() const { return Cell::reset_first || d.projected; }

  ForwardStep<T> parameters() const {
    ForwardStep<T> step{};
    step.rows = {d.rows, d.steps, s.lengths, s.reverse};
    step.hidden = d.hidden, step.output = d.output;
    step.x = x_;
    step.p = {p_, step_gates * d.hidden}, step.p2 = {p2_, Cell::reset_first ? d.hidden : d.output};
    step.b_ih = static_cast<const T*>(s.weights.b_ih), step.b_hh = static_cast<const T*>(s.weights.b_hh);
    step.h = {h_[0], d.output}, step.c = {c_, d.hidden};
    step.between = {between_, d.hidden}, step.kept = {kept_, G * d.hidden};
    step.y = {static_cast<T*>(s.y.data), s.y.time, s.y.row, s.y.unit};
    step.saved = static_cast<A*>(s.saved), step.cells = static_cast<A*>(s.cells);
    step.h0 = static_cast<const T*>(s.h0), step.c0 = static_cast<const T*>(s.c0);
    step.h_n = static_cast<T*>(s.h_n), step.c_n = static_cast<T*>(s.c_n);
    return step;
  }

  // W_ih x for the steps of a chunk; returns the first of its times.
  int64_t input_product(int64_t step, Products& multiply) const {
    const int64_t steps = std::min(chunk_, d.steps - step);
    const int64_t time = s.reverse ? d.steps - step - steps : step;
    const Factor x{static_cast<const T*>(s.x) + time * d.rows * s.x_stride, s.x_stride};
    multiply({steps * d.rows,
              G * d.hidden,
              d.input,
              x,
              {s.weights.w_ih, d.input, true},
              x_,
              G * d.hidden,
              dtype_of<T>,
              dtype_of<A>});
    return time;
  }

  // (B, n) = a (B, k) w (n, k)^T
  Product hidden_product(const T* a, int64_t k, const void* w, int64_t n, A* to) const {
    return {d.rows, n, k, {a, k}, {w, k, true}, to, n, dtype_of<T>, dtype_of<A>};
  }

  void stage(const ForwardStep<T>& step, Stream stream, Products& multiply) const {
    if constexpr (Cell::reset_first) {
      launch_stage<ForwardReset<Cell>>(step, d.hidden, stream);
      const T* last_gate = static_cast<const T*>(s.weights.w_hh) + step_gates * d.hidden * d.output;
      multiply(hidden_product(between_, d.hidden, last_gate, d.hidden, p2_));
      launch_stage<ForwardMix<Cell>>(step, d.hidden, stream);
    } else {
      if constexpr (can_project<Cell>) {
        if (d.projected) {
          launch_stage<ForwardGates<Cell, true>>(step, d.hidden, stream);
          multiply(hidden_product(between_, d.hidden, s.weights.w_hr, d.output, p2_));
          return launch_stage<ForwardProjected>(step, d.output, stream);
        }
      }
      launch_stage<ForwardGates<Cell, false>>(step, d.hidden, stream);
    }
  }

  const Sequence& s;
  const Dims& d;
  int64_t chunk_;  // steps
  A *x_, *p_, *p2_, *kept_, *c_;
  T *between_, *h_[2];
  Exchanges<T> exchanges_;
};

template <class Cell, class T> class LayerBackward {
  using A = Computed<T>;
  static constexpr int G = Cell::gates, S = Cell::slots;
  static constexpr int step_gates = G - Cell::reset_first;

 public:
  LayerBackward(const SequenceGradient& sequence, std::byte* workspace) : LayerBackward(sequence, Carver(workspace)) {}

  // The sequential part: the gradients of all gates, dh0 and dc0.
  void steps(Stream stream, Products& multiply) const {
    BackwardStep<T> step = parameters();
    if (s.how.way != Way::step_by_step) {
      const auto* w_hh = static_cast<const T*>(s.weights.w_hh);
      return launch_resident<Cell, T>(step, s.how, exchanges_, w_hh, stream);
    }
    launch_stage<BackwardBegin<Cell>>(step, d.hidden, stream);
    for (step.step = d.steps; step.step-- > 0;) {
      stage(step, stream, multiply);
      multiply(step_product(step_slots_, S * d.hidden, step_gates * d.hidden, s.weights.w_hh, d.output, product_));
      step.has_product = true;
    }
    launch_stage<BackwardFinish<Cell>>(step, d.hidden, stream);
  }

  // Over all time: dx and the gradients of the weights.
  void products(Stream stream, Products& multiply) const {
    const BackwardStep<T> step = parameters();
    const int64_t all = d.steps * d.rows;
    launch_elements(all, d.output, stream, gather_before<Cell, T, false>, step, before_);
    multiply(over_time(slots(0), S * d.hidden, step_gates * d.hidden, {before_, d.output}, d.output, s.gradients.w_hh));
    if constexpr (Cell::reset_first) {
      launch_elements(all, d.hidden, stream, gather_before<Cell, T, true>, step, second_before_);
      T* last_gate = static_cast<T*>(s.gradients.w_hh) + step_gates * d.hidden * d.output;
      multiply(over_time(slots(step_gates), S * d.hidden, d.hidden, {second_before_, d.hidden}, d.hidden, last_gate));
    }
    if constexpr (can_project<Cell>) {
      if (d.projected) {
        launch_elements(all, d.hidden, stream, gather_unprojected<Cell, T>, step, second_before_);
        multiply(over_time(d_output_, d.output, d.output, {second_before_, d.hidden}, d.hidden, s.gradients.w_hr));
      }
    }
    for (const Run& run : input_runs()) {
      const int64_t first = run.gate * d.hidden, n = run.gates * d.hidden;
      T* to = static_cast<T*>(s.gradients.w_ih) + first * d.input;
      multiply(over_time(slots(run.slot), S * d.hidden, n, {s.x, s.x_stride}, d.input, to));
      if (s.dx) {
        const T* w = static_cast<const T*>(s.weights.w_ih) + first * d.input;
        multiply({all,
                  d.input,
                  n,
                  {slots(run.slot), S * d.hidden},
                  {w, d.input},
                  s.dx,
                  s.dx_stride,
                  dtype_of<T>,
                  dtype_of<T>,
                  s.add_dx || run.gate > 0});
      }
      if (s.gradients.b_ih) {
        T* b_ih = static_cast<T*>(s.gradients.b_ih) + first;
        launch_column_sums<T>({all, S * d.hidden, n, slots(run.slot), b_ih}, stream);
      }
    }
    if (s.gradients.b_hh) {
      T* b_hh = static_cast<T*>(s.gradients.b_hh);
      launch_column_sums<T>({all, S * d.hidden, G * d.hidden, slots(0), b_hh}, stream);
    }
  }

  size_t bytes;

 private:
  LayerBackward(const SequenceGradient& sequence, Carver memory)
      : s(sequence), d(sequence.dims),
        exchanges_(d.rows, d.projected ? 0 : step_gates * d.hidden, Cell::reset_first * d.hidden, memory) {
    const int64_t all = d.steps * d.rows;
    slots_ = memory.take<T>(all * S * d.hidden);
    step_slots_ = memory.take<T>(d.rows * S * d.hidden);
    d_output_ = d.projected ? memory.take<T>(all * d.output) : nullptr;
    step_d_output_ = d.projected ? memory.take<T>(d.rows * d.output) : nullptr;
    before_ = memory.take<T>(all * d.output);
    second_before_ = second() ? memory.take<T>(all * d.hidden) : nullptr;
    d_hidden_ = second() ? memory.take<A>(d.rows * d.hidden) : nullptr;
    product_ = memory.take<A>(d.rows * d.output);
    carried_ = memory.take<A>(d.rows * d.output);
    dc_ = Cell::has_cell ? memory.take<A>(d.rows * d.hidden) : nullptr;
    bytes = memory.used();
  }

  bool second() const { return Cell::reset_first || d.projected; }
  const T* slots(int first) const { return slots_ + first * d.hidden; }

  BackwardStep<T> parameters() const {
    BackwardStep<T> step{};
    step.rows = {d.rows, d.steps, s.lengths, s.reverse};
    step.hidden = d.hidden, step.output = d.output;
    step.saved = static_cast<const A*>(s.saved), step.cells = static_cast<const A*>(s.cells);
    step.y = {static_cast<const T*>(s.y.data), s.y.time, s.y.row, s.y.unit};
    step.h0 = static_cast<const T*>(s.h0), step.c0 = static_cast<const T*>(s.c0);
    step.dy = {static_cast<const T*>(s.dy.data), s.dy.time, s.dy.row, s.dy.unit};
    step.dropout = s.dropout, step.column = s.column;
    step.slots = slots_, step.d_output = d_output_;
    step.product = {product_, d.output}, step.carried = {carried_, d.output}, step.dc = {dc_, d.hidden};
    step.step_slots = {step_slots_, S * d.hidden}, step.step_d_output = {step_d_output_, d.output};
    step.d_hidden = {d_hidden_, d.hidden};
    step.dh_n = static_cast<const T*>(s.dh_n), step.dc_n = static_cast<const T*>(s.dc_n);
    step.dh0 = static_cast<T*>(s.dh0), step.dc0 = static_cast<T*>(s.dc0);
    return step;
  }

  void stage(const BackwardStep<T>& step, Stream stream, Products& multiply) const {
    if constexpr (Cell::reset_first) {
      launch_stage<BackwardMix<Cell>>(step, d.hidden, stream);
      const T* last_gate = static_cast<const T*>(s.weights.w_hh) + step_gates * d.hidden * d.output;
      const T* slot = step_slots_ + step_gates * d.hidden;
      multiply(step_product(slot, S * d.hidden, d.hidden, last_gate, d.hidden, d_hidden_));
      launch_stage<BackwardReset<Cell>>(step, d.hidden, stream);
    } else {
      if constexpr (can_project<Cell>) {
        if (d.projected) {
          launch_stage<BackwardProjected>(step, d.output, stream);
          multiply(step_product(step_d_output_, d.output, d.output, s.weights.w_hr, d.hidden, d_hidden_));
          return launch_stage<BackwardGates<Cell, true>>(step, d.hidden, stream);
        }
      }
      launch_stage<BackwardGates<Cell, false>>(step, d.hidden, stream);
    }
  }

  // (B, n) = a (B, k) w (k, n)
  Product step_product(const T* a, int64_t stride, int64_t k, const void* w, int64_t n, A* to) const {
    return {d.rows, n, k, {a, stride}, {w, n}, to, n, dtype_of<T>, dtype_of<A>};
  }

  // (m, n) = a (T B, m)^T b (T B, n)
  Product over_time(const T* a, int64_t stride, int64_t m, Factor b, int64_t n, void* to) const {
    return {m, n, d.steps * d.rows, {a, stride, true}, b, to, n, dtype_of<T>, dtype_of<T>};
  }

  // Gates whose gradients for the product with W_ih follow one another.
  struct Run {
    int gate, gates, slot;
  };
  static std::vector<Run> input_runs() {
    std::vector<Run> runs;
    for (int gate = 0; gate < G; ++gate) {
      const int slot = slot_order<Cell>.at[Cell::input_slot[gate]];
      if (!runs.empty() && runs.back().slot + runs.back().gates == slot) {
        ++runs.back().gates;
      } else {
        runs.push_back({gate, 1, slot});
      }
    }
    return runs;
  }

  const SequenceGradient& s;
  const Dims& d;
  T *slots_, *step_slots_, *d_output_, *step_d_output_;
  T* before_;  // (T B, P): what W_hh met
  T* second_before_;  // (T B, H): what the second product of a step met
  A *d_hidden_, *product_, *carried_, *dc_;
  Exchanges<T> exchanges_;
};

template <class Cell, class T> constexpr Kernels layer_kernels() {
  return {
      Cell::gates,
      saved_values<Cell>,
      Cell::has_cell,
      1 + Cell::reset_first,
      [](const Dims& d, const Partition& how, bool backward) {
        return d.projected ? 0 : resident_bytes<Cell, T>(how, d.hidden, backward);
      },
      [](const Sequence& s) { return LayerForward<Cell, T>(s, nullptr).bytes; },
      [](const Sequence& s, std::byte* workspace, Stream stream, Products& multiply) {
        LayerForward<Cell, T>(s, workspace).run(stream, multiply);
      },
      [](const SequenceGradient& s) { return LayerBackward<Cell, T>(s, nullptr).bytes; },
      [](const SequenceGradient& s, std::byte* workspace, Stream stream, Products& multiply) {
        LayerBackward<Cell, T>(s, workspace).steps(stream, multiply);
      },
      [](const SequenceGradient& s, std::byte* workspace, Stream stream, Products& multiply) {
        LayerBackward<Cell, T>(s, workspace).products(stream, multiply);
      },
  };
}

}  // namespace fastrnn::cuda

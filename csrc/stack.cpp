// A network: layers, directions, dropout between layers and lengths around the kernels of one layer and direction.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <utility>

#include "fastrnn.h"
#include "floating_point.h"
#include "kernels.h"
#include "plan.h"
#include "red_zone.h"
#include "threads.h"

namespace fastrnn {
namespace {

std::atomic<uint64_t> calls{0};

constexpr size_t line = 64;
constexpr size_t kept_bytes = size_t{64} << 20;

size_t round_up(size_t bytes) { return (bytes + line - 1) / line * line; }

// Scratch memory stays with its thread, so that calls in a row neither ask the system for it nor meet fresh pages.
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    if (bytes > kept.size) {
      kept = {};  // before the new one is asked for: the two need not fit together
      kept = {allocate(bytes), bytes};
    }
#if FASTRNN_ASAN
    std::memset(kept.data.get(), 0xff, kept.size);  // NaN, so that what was never written shows
#endif
  }
  ~Scratch() {
    FASTRNN_ALLOW(kept.data.get(), kept.size);
    if (kept.size > kept_bytes) kept = {};
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::byte* data() const { return kept.data.get(); }

 private:
  struct Kept {
    Memory data;
    size_t size = 0;
  };
  static thread_local Kept kept;
};
thread_local Scratch::Kept Scratch::kept;

// Hands out parts of a block; with no block it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base = nullptr) : base_(base) {}
  template <class T> T* take(int64_t n) {
    std::byte* piece = base_ ? base_ + used_ : nullptr;
    used_ += round_up(static_cast<size_t>(n) * sizeof(T));
    if (base_) FASTRNN_FORBID(base_ + used_, red_zone);
    used_ += red_zone;
    return reinterpret_cast<T*>(piece);
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

Dims layer_dims(const Spec& spec, int64_t layer, int64_t steps, int64_t rows) {
  return {steps, rows, spec.layer_input(layer), spec.hidden_size, spec.output_size(), spec.proj_size > 0};
}

template <class T> View<T> view(const Strided& a) { return {static_cast<T*>(a.data), a.time, a.row, a.unit}; }
template <class T> View<T> dense(T* data, int64_t rows, int64_t width) { return {data, rows * width, width, 1}; }
// The columns of one direction.
template <class T> View<T> columns(View<T> v, int64_t first) {
  if (v.data) v.data += first * v.unit;
  return v;
}
template <class T> View<const T> reading(const View<T>& v) { return {v.data, v.time, v.row, v.unit}; }

template <class T> Weights<T> typed(const LayerWeights& w) {
  return {static_cast<const T*>(w.w_ih), static_cast<const T*>(w.w_hh), static_cast<const T*>(w.b_ih),
          static_cast<const T*>(w.b_hh), static_cast<const T*>(w.w_hr), static_cast<const T*>(w.w_peephole)};
}

// Rows by descending length, those of equal length in their own order (a counting sort).
Batch sort_rows(const Forward& call, Carver& memory, bool fill) {
  const int64_t *lengths = call.lengths, steps = call.steps, rows = call.rows;
  if (!lengths) return {};
  int64_t* order = memory.take<int64_t>(rows);
  int64_t* length = memory.take<int64_t>(rows);
  int64_t* alive = memory.take<int64_t>(steps + 2);
  int64_t* begin = call.packed ? memory.take<int64_t>(steps + 1) : nullptr;
  if (!fill) return {};
  std::fill_n(alive, steps + 2, int64_t{0});
  for (int64_t b = 0; b < rows; ++b) ++alive[lengths[b]];
  for (int64_t n = steps; n >= 0; --n) alive[n] += alive[n + 1];  // rows of at least n steps
  for (int64_t b = rows; b-- > 0;) {
    const int64_t place = --alive[lengths[b]];
    order[place] = b;
    length[place] = lengths[b];
  }
  // Taking rows away left alive[n] = rows of more than n steps.
  if (begin) {
    begin[0] = 0;
    for (int64_t t = 0; t < steps; ++t) begin[t + 1] = begin[t] + alive[t];
  }
  return {order, length, alive, begin};
}

// The threads of a call and how they stand to one another. Where a group is everyone, so is its barrier: the call of
// one thread has no other.
class Crew {
 public:
  explicit Crew(const Plan& plan)
      : plan_(plan), everyone_(plan.threads()),
        directions_(several(plan.directions), Barrier(plan.teams * plan.team_size)),
        teams_(several(plan.directions * plan.teams), Barrier(plan.team_size)) {}

  Barrier& everyone() { return everyone_; }
  int group(int rank) const { return rank / (plan_.teams * plan_.team_size); }
  Member member(int rank) {
    const int per_direction = plan_.teams * plan_.team_size, inside = rank % per_direction;
    const int team = inside / plan_.team_size;
    return {team,
            plan_.teams,
            inside % plan_.team_size,
            plan_.team_size,
            inside,
            per_direction,
            teams_.empty() ? &everyone_ : &teams_[static_cast<size_t>(group(rank) * plan_.teams + team)],
            directions_.empty() ? &everyone_ : &directions_[static_cast<size_t>(group(rank))]};
  }

 private:
  static size_t several(int groups) { return groups > 1 ? static_cast<size_t>(groups) : 0; }

  Plan plan_;
  Barrier everyone_;
  std::vector<Barrier> directions_, teams_;
};

template <class T>
Problem problem(const Spec& spec, const Kernels<T>& k, int64_t steps, int64_t rows, double mean_rows, bool backward) {
  Dims dims = layer_dims(spec, 0, steps, rows);
  if (spec.num_layers > 1) dims.input = std::max(dims.input, spec.layer_input(1));
  const int step_products = 1 + (dims.projected || k.reset_first);
  return {dims, mean_rows, k.gates, step_products, static_cast<int>(spec.directions()), backward, k.lanes, sizeof(T)};
}

template <class T> Problem problem(const Spec& spec, const Kernels<T>& k, const Forward& call, bool backward) {
  double rows = static_cast<double>(call.rows);
  if (call.lengths) {
    const int64_t all = std::accumulate(call.lengths, call.lengths + call.rows, int64_t{0});
    rows = static_cast<double>(all) / static_cast<double>(std::max<int64_t>(1, call.steps));
  }
  return problem(spec, k, call.steps, call.rows, rows, backward);
}

// Rows of an array over time.
int64_t row_steps(const Forward& call) {
  return call.packed ? std::accumulate(call.lengths, call.lengths + call.rows, int64_t{0}) : call.steps * call.rows;
}

TapeLayout layout_of_tape(const Spec& spec, const Forward& call) {
  return call.packed ? tape_layout(spec, row_steps(call), 1) : tape_layout(spec, call.steps, call.rows);
}

int allowed_threads(const Forward& call) {
  return call.threads > 0 ? std::min(call.threads, num_threads()) : num_threads();
}

// Offset of a layer and direction's part of a state.
int64_t state_offset(int64_t index, int64_t rows, int64_t width) { return index * rows * width; }

template <class T> T* at(T* base, int64_t offset) { return base ? base + offset : nullptr; }

// Memory of a forward call, laid out by the constructor: what run() uses and forward_scratch() counts.
template <class T> struct ForwardMemory {
  Batch batch;
  T* pack[2];     // by direction side by side
  T* scratch[2];
  T* other;       // (T, B, D P): with y, the layers of a bidirectional network take turns
  size_t bytes;

  ForwardMemory(const Spec& spec, const Kernels<T>& k, const Plan& plan, const Forward& call, bool training,
                bool prepared, std::byte* base) {
    Carver memory(base);
    batch = sort_rows(call, memory, base != nullptr);
    int64_t pack_size = 0, scratch_size = 0;
    for (int64_t layer = 0; layer < std::min<int64_t>(spec.num_layers, 2); ++layer) {
      const Dims dims = layer_dims(spec, layer, call.steps, call.rows);
      pack_size = std::max(pack_size, k.forward_pack_size(dims));
      scratch_size = std::max(scratch_size, k.forward_scratch(dims, plan.chunk, plan.teams));
    }
    for (int i = 0; i < 2; ++i) {
      const bool used = i < plan.directions;
      pack[i] = memory.take<T>(used && !prepared ? pack_size : 0);
      scratch[i] = memory.take<T>(used ? scratch_size : 0);
    }
    const bool swaps = !training && spec.bidirectional && spec.num_layers > 1;
    other = memory.take<T>(swaps ? row_steps(call) * 2 * spec.output_size() : 0);
    bytes = memory.used();
  }
};

template <class T>
void run_forward(const Spec& spec, const Kernels<T>& k, const std::vector<LayerWeights>* weights, const T* prepared,
                 const Forward& call) {
  const bool training = call.tape != nullptr;
  const int64_t B = call.rows, H = spec.hidden_size, P = spec.output_size(), D = spec.directions();
  const Problem what = problem(spec, k, call, false);
  Plan way = plan(what, allowed_threads(call));
  Lease lease(way.threads(), way.insists, call.on_openmp);
  if (lease.threads() < way.threads()) way = plan(what, lease.threads());

  const size_t bytes = ForwardMemory<T>(spec, k, way, call, training, prepared, nullptr).bytes;
  const Scratch scratch(bytes);
  const ForwardMemory<T> memory(spec, k, way, call, training, prepared, scratch.data());
  TapeLayout tape;
  if (training) tape = layout_of_tape(spec, call);
  const auto on_tape = [&](size_t offset) { return reinterpret_cast<T*>(call.tape + offset); };

  const auto sequence = [&](int64_t layer, int64_t direction, int slot) {
    const int64_t index = layer * D + direction, last = spec.num_layers - 1;
    Sequence<T> s{};
    s.dims = layer_dims(spec, layer, call.steps, B);
    s.options = spec.options ? &*spec.options : nullptr;
    s.batch = memory.batch;
    s.reverse = direction == 1;
    s.chunk = way.chunk;
    s.weights = way.weights;
    s.dropout = layer_dropout(spec, layer, call.dropout_seed, training);
    // What a layer gives: on the tape in training; else in y, where the next layer overwrites it step by step, or,
    // where the other direction still needs it, in turn in y and beside it.
    const auto output = [&](int64_t l) -> View<T> {
      if (l == last) return view<T>(call.y);
      if (training) return dense(on_tape(tape.layers[static_cast<size_t>(l)].hidden), B, D * P);
      return D == 2 && (last - l) % 2 == 1 ? dense(memory.other, B, D * P) : view<T>(call.y);
    };
    s.x = layer ? reading(output(layer - 1)) : reading(view<T>(call.x));
    s.in_place = layer > 0 && !training && D == 1;
    s.y = columns(output(layer), direction * P);
    s.h0 = at(static_cast<const T*>(call.h0), state_offset(index, B, P));
    s.c0 = at(static_cast<const T*>(call.c0), state_offset(index, B, H));
    s.h_n = at(static_cast<T*>(call.h_n), state_offset(index, B, P));
    s.c_n = at(static_cast<T*>(call.c_n), state_offset(index, B, H));
    if (training) {
      const TapeLayout::Layer& kept = tape.layers[static_cast<size_t>(layer)];
      s.saved = on_tape(kept.saved[static_cast<size_t>(direction)]);
      if (spec.has_cell()) s.cells = on_tape(kept.cells[static_cast<size_t>(direction)]);
    }
    s.pack = memory.pack[slot];
    s.scratch = memory.scratch[slot];
    return s;
  };

  // Weights of a single product, shared out by panels, need not lie packed in memory.
  const bool by_units = !prepared && way.teams == 1;
  const bool input_once = by_units && row_steps(call) <= std::max(way.chunk.forward, B);
  const bool hidden_once = by_units && call.steps == 1 && !k.reset_first;

  Crew crew(way);
  const auto body = [&](int rank) {
    const Member me = crew.member(rank);
    const int group = crew.group(rank);
    const T* snapshot = prepared;
    for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
      for (int64_t direction = 0; direction < D; ++direction) {
        const Dims dims = layer_dims(spec, layer, call.steps, B);
        const T* own = snapshot;
        if (prepared) snapshot += k.forward_pack_size(dims);
        if (way.directions == 2 && direction != group) continue;
        Sequence<T> s = sequence(layer, direction, group);
        if (prepared) {
          s.pack = own;
        } else {
          Weights<T> w = typed<T>((*weights)[static_cast<size_t>(layer * D + direction)]);
          s.panels = memory.pack[group];
          if (input_once) s.w_ih = std::exchange(w.w_ih, nullptr);
          if (hidden_once) s.w_hh = std::exchange(w.w_hh, nullptr);
          k.forward_pack(dims, w, memory.pack[group], me.direction_rank, me.direction_size);
          me.direction_barrier->wait();
        }
        k.forward(s, me);
        me.direction_barrier->wait();
      }
      if (way.directions == 2) crew.everyone().wait();
    }
  };
  run(lease, way.threads(), body);
  calls.fetch_add(1, std::memory_order_relaxed);
}

template <class T> struct BackwardMemory {
  Batch batch;
  T* pack[2];
  T* scratch[2];
  T* layer_gradient[2];  // (T, B, D P): dy of the layers below the last, by parity of the layer
  T* second;             // (T, B, widest input): dx of the reverse direction, added at the end
  size_t bytes;

  BackwardMemory(const Spec& spec, const Kernels<T>& k, const Plan& plan, const Backward& call, std::byte* base) {
    Carver memory(base);
    batch = sort_rows(call, memory, base != nullptr);
    int64_t pack_size = 0, scratch_size = 0, widest = 0;
    for (int64_t layer = 0; layer < std::min<int64_t>(spec.num_layers, 2); ++layer) {
      const Dims dims = layer_dims(spec, layer, call.steps, call.rows);
      pack_size = std::max(pack_size, k.backward_pack_size(dims));
      scratch_size = std::max(scratch_size, k.backward_scratch(dims, plan.chunk, plan.teams * plan.team_size));
      widest = std::max(widest, dims.input);
    }
    for (int i = 0; i < 2; ++i) {
      const bool used = i < plan.directions;
      pack[i] = memory.take<T>(used ? pack_size : 0);
      scratch[i] = memory.take<T>(used ? scratch_size : 0);
    }
    const int64_t wide = row_steps(call) * spec.directions() * spec.output_size();
    layer_gradient[0] = memory.take<T>(spec.num_layers > 1 ? wide : 0);
    layer_gradient[1] = memory.take<T>(spec.num_layers > 2 ? wide : 0);
    second = memory.take<T>(spec.bidirectional ? row_steps(call) * widest : 0);
    bytes = memory.used();
  }
};

template <class T>
void run_backward(const Spec& spec, const Kernels<T>& k, const std::vector<LayerWeights>& weights,
                  const Backward& call) {
  const int64_t B = call.rows, H = spec.hidden_size, P = spec.output_size(), D = spec.directions();
  const Problem what = problem(spec, k, call, true);
  Plan way = plan(what, allowed_threads(call));
  Lease lease(way.threads(), way.insists, call.on_openmp);
  if (lease.threads() < way.threads()) way = plan(what, lease.threads());

  const size_t bytes = BackwardMemory<T>(spec, k, way, call, nullptr).bytes;
  const Scratch scratch(bytes);
  const BackwardMemory<T> memory(spec, k, way, call, scratch.data());
  const TapeLayout tape = layout_of_tape(spec, call);
  const auto on_tape = [&](size_t offset) { return reinterpret_cast<const T*>(call.tape + offset); };
  const auto gradient_into = [&](int64_t layer) -> View<T> {
    return layer ? dense(memory.layer_gradient[(layer - 1) % 2], B, D * P) : view<T>(call.dx);
  };

  const auto sequence = [&](int64_t layer, int64_t direction, int slot) {
    const size_t index = static_cast<size_t>(layer * D + direction);
    const int64_t last = spec.num_layers - 1;
    const auto output = [&](int64_t l) -> View<const T> {
      return l == last ? reading(view<T>(call.y))
                       : dense(on_tape(tape.layers[static_cast<size_t>(l)].hidden), B, D * P);
    };
    SequenceGradient<T> s{};
    s.dims = layer_dims(spec, layer, call.steps, B);
    s.options = spec.options ? &*spec.options : nullptr;
    s.batch = memory.batch;
    s.reverse = direction == 1;
    s.chunk = way.chunk;
    s.weights = way.weights;
    s.dropout = layer_dropout(spec, layer, call.dropout_seed, true);
    s.x = layer ? output(layer - 1) : reading(view<T>(call.x));
    s.y = columns(output(layer), direction * P);
    s.dy = columns(layer == last ? reading(view<T>(call.dy)) : reading(gradient_into(layer + 1)), direction * P);
    const int64_t i = layer * D + direction, h_part = state_offset(i, B, P), c_part = state_offset(i, B, H);
    s.h0 = at(static_cast<const T*>(call.h0), h_part);
    s.c0 = at(static_cast<const T*>(call.c0), c_part);
    s.dh_n = at(static_cast<const T*>(call.dh_n), h_part);
    s.dc_n = at(static_cast<const T*>(call.dc_n), c_part);
    s.dh0 = at(static_cast<T*>(call.dh0), h_part);
    s.dc0 = at(static_cast<T*>(call.dc0), c_part);
    const TapeLayout::Layer& kept = tape.layers[static_cast<size_t>(layer)];
    s.saved = on_tape(kept.saved[static_cast<size_t>(direction)]);
    if (spec.has_cell()) s.cells = on_tape(kept.cells[static_cast<size_t>(direction)]);
    s.dx = gradient_into(layer);
    if (direction == 1 && s.dx.data) s.dx = dense(memory.second, B, s.dims.input);
    const LayerGradients& g = call.gradients[index];
    s.w_ih = static_cast<T*>(g.w_ih), s.w_hh = static_cast<T*>(g.w_hh);
    s.b_ih = static_cast<T*>(g.b_ih), s.b_hh = static_cast<T*>(g.b_hh);
    s.w_hr = static_cast<T*>(g.w_hr), s.w_peephole = static_cast<T*>(g.w_peephole);
    s.pack = memory.pack[slot];
    s.scratch = memory.scratch[slot];
    return s;
  };

  // dx of the forward direction += dx of the reverse one, this thread's share of the rows.
  const auto add_directions = [&](int64_t layer, int rank) {
    const View<T> to = gradient_into(layer);
    if (!to.data) return;
    const int64_t n = spec.layer_input(layer), rows = row_steps(call), threads = way.threads();
    for (int64_t i = rows * rank / threads; i < rows * (rank + 1) / threads; ++i) {
      T* sum = to.data + (call.packed ? i * to.row : i / B * to.time + i % B * to.row);
      const T* part = memory.second + i * n;
      for (int64_t j = 0; j < n; ++j) sum[j] += part[j];
    }
  };

  Crew crew(way);
  const auto body = [&](int rank) {
    const Member me = crew.member(rank);
    const int group = crew.group(rank);
    for (int64_t layer = spec.num_layers - 1; layer >= 0; --layer) {
      for (int64_t direction = 0; direction < D; ++direction) {
        if (way.directions == 2 && direction != group) continue;
        const SequenceGradient<T> s = sequence(layer, direction, group);
        const size_t index = static_cast<size_t>(layer * D + direction);
        Weights<T> w = typed<T>(weights[index]);
        if (!s.dx.data) w.w_ih = nullptr;  // nothing is multiplied by it
        if (call.steps <= 1 && !call.dh0 && !k.reset_first) w.w_hh = nullptr;
        k.backward_pack(s.dims, w, memory.pack[group], me.direction_rank, me.direction_size);
        me.direction_barrier->wait();
        k.backward(s, me);
        me.direction_barrier->wait();
      }
      if (D == 2) {
        crew.everyone().wait();
        add_directions(layer, rank);
        crew.everyone().wait();
      }
    }
  };
  run(lease, way.threads(), body);
  calls.fetch_add(1, std::memory_order_relaxed);
}

template <class Function> auto with_type(const Spec& spec, Isa isa, Function&& function) {
  const bool options = spec.options.has_value();
  return spec.dtype == DType::float32 ? function(kernels<float>(spec.cell, options, isa))
                                      : function(kernels<double>(spec.cell, options, isa));
}

template <class T> Packed pack_all(const Spec& spec, const Kernels<T>& k, const std::vector<LayerWeights>& weights,
                                   Isa isa) {
  int64_t size = 0;
  const auto for_all = [&](auto&& visit) {
    for (int64_t i = 0; i < spec.num_layers * spec.directions(); ++i) {
      visit(static_cast<size_t>(i), layer_dims(spec, i / spec.directions(), 0, 0));
    }
  };
  for_all([&](size_t, const Dims& dims) { size += k.forward_pack_size(dims); });
  Packed packed{isa, allocate(static_cast<size_t>(size) * sizeof(T)), static_cast<size_t>(size) * sizeof(T)};
  T* to = reinterpret_cast<T*>(packed.data.get());
  const KernelMode mode;  // it adds biases
  for_all([&](size_t i, const Dims& dims) {
    k.forward_pack(dims, typed<T>(weights[i]), to, 0, 1);
    to += k.forward_pack_size(dims);
  });
  return packed;
}

}  // namespace

Packed pack(const Spec& spec, const std::vector<LayerWeights>& weights) {
  const Isa chosen = isa();
  return with_type(spec, chosen, [&](const auto& k) { return pack_all(spec, k, weights, chosen); });
}

void forward(const Spec& spec, const std::vector<LayerWeights>& weights, const Forward& call) {
  with_type(spec, isa(), [&]<class T>(const Kernels<T>& k) { run_forward<T>(spec, k, &weights, nullptr, call); });
}

void forward(const Spec& spec, const Packed& packed, const Forward& call) {
  with_type(spec, packed.isa, [&]<class T>(const Kernels<T>& k) {
    run_forward<T>(spec, k, nullptr, reinterpret_cast<const T*>(packed.data.get()), call);
  });
}

void backward(const Spec& spec, const std::vector<LayerWeights>& weights, const Backward& call) {
  with_type(spec, isa(), [&]<class T>(const Kernels<T>& k) { run_backward<T>(spec, k, weights, call); });
}

std::vector<int64_t> tape_widths(const Spec& spec) {
  std::vector<int64_t> widths;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (int64_t direction = 0; direction < spec.directions(); ++direction) {
      widths.push_back(spec.saved() * spec.hidden_size);
      if (spec.has_cell()) widths.push_back(spec.hidden_size);
    }
    widths.push_back(layer + 1 < spec.num_layers ? spec.directions() * spec.output_size() : 0);
  }
  return widths;
}

TapeLayout tape_layout(const Spec& spec, int64_t steps, int64_t rows) {
  TapeLayout layout{{}, 0};
  const std::vector<int64_t> widths = tape_widths(spec);
  auto next = widths.begin();
  const auto take = [&] {
    const size_t offset = layout.bytes;
    size_t bytes = spec.itemsize();
    bool too_large = false;
    for (const int64_t n : {steps, rows, *next++}) {
      too_large |= __builtin_mul_overflow(bytes, static_cast<size_t>(n), &bytes);
    }
    if (too_large || __builtin_add_overflow(offset, bytes, &layout.bytes) || layout.bytes > PTRDIFF_MAX) {
      throw std::bad_alloc();
    }
    layout.bytes = round_up(layout.bytes);
    return offset;
  };
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    TapeLayout::Layer kept{};
    for (int64_t direction = 0; direction < spec.directions(); ++direction) {
      kept.saved.push_back(take());
      if (spec.has_cell()) kept.cells.push_back(take());
    }
    kept.hidden = take();
    layout.layers.push_back(std::move(kept));
  }
  return layout;
}

size_t forward_scratch(const Spec& spec, int64_t steps, int64_t rows, bool training, bool prepared) {
  return with_type(spec, isa(), [&]<class T>(const Kernels<T>& k) {
    Forward call{};
    call.steps = steps, call.rows = rows;
    const Plan way = plan(problem(spec, k, call, false), num_threads());
    return ForwardMemory<T>(spec, k, way, call, training, prepared, nullptr).bytes;
  });
}

size_t backward_scratch(const Spec& spec, int64_t steps, int64_t rows) {
  return with_type(spec, isa(), [&]<class T>(const Kernels<T>& k) {
    Backward call{};
    call.steps = steps, call.rows = rows;
    const Plan way = plan(problem(spec, k, call, true), num_threads());
    return BackwardMemory<T>(spec, k, way, call, nullptr).bytes;
  });
}

std::string explain_plan(const Spec& spec, int64_t steps, int64_t rows, bool backward) {
  return with_type(spec, isa(), [&]<class T>(const Kernels<T>& k) {
    return explain(problem(spec, k, steps, rows, static_cast<double>(rows), backward), num_threads());
  });
}

uint64_t native_calls() { return calls.load(std::memory_order_relaxed); }

}  // namespace fastrnn

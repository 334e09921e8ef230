// A network: layers, directions and dropout between layers around the kernels of one layer and direction.
#include <cstddef>
#include <cstdio>
#include <new>

#include "carver.h"
#include "elements.cuh"

namespace fastrnn::cuda {

struct Context::Parts {
  Products products[2];  // of the forward and of the reverse direction
  SideStream side;       // the reverse direction's, where there is one
};

Context::Context() : parts_(std::make_unique<Parts>()) {}
Context::~Context() = default;
Context::Context(Context&&) noexcept = default;
Context& Context::operator=(Context&&) noexcept = default;

namespace {

// Rows of numbers one after the other, as products read and write them.
template <class T> struct Matrix {
  T* data;
  int64_t stride;
};

template <class T> View<T> view(const Strided& a) { return {static_cast<T*>(a.data), a.time, a.row, a.unit}; }

Strided dense(void* data, int64_t rows, int64_t width) { return {data, rows * width, width, 1}; }

// The columns of one direction.
template <class T> Strided columns(Strided a, int64_t first) {
  if (a.data) a.data = static_cast<T*>(a.data) + first;
  return a;
}

template <class T> T* part(const void* state, int64_t index, int64_t rows, int64_t width) {
  return state ? static_cast<T*>(const_cast<void*>(state)) + index * rows * width : nullptr;
}

// The stride from row to row of (T B, width), if the array lies like that; else 0.
int64_t even_stride(const Strided& a, int64_t rows, int64_t width) {
  const int64_t stride = rows == 1 ? a.time : a.row;
  return a.unit == 1 && stride >= width && (rows == 1 || a.time == rows * a.row) ? stride : 0;
}

StepProblem step_problem(const Spec& spec, const Kernels& k, const Dims& dims, bool backward) {
  const int products = k.step_products + dims.projected;
  return {dims, k.gates, products, static_cast<int>(spec.directions()), spec.itemsize(), backward, k.resident_bytes};
}

// What forward and backward have in common.
template <class T> class Network {
 protected:
  Network(const Spec& spec_, const Forward& call_)
      : spec(spec_), call(call_), k(kernels(spec_.cell, spec_.dtype)), T_(call_.steps), B(call_.rows),
        H(spec_.hidden_size), P(spec_.output_size()), D(spec_.directions()), last(spec_.num_layers - 1) {
    if (call.tape) tape = cuda::tape_layout(spec, T_, B);
  }

  void common_memory(Carver& memory) {
    for (int i = 0; i < D; ++i) blas[i] = memory.take<std::byte>(static_cast<int64_t>(Products::workspace_bytes()));
    const bool gathers_x = call.lengths || !even_stride(call.x, B, spec.input_size);
    const bool drops = call.tape && spec.num_layers > 1 && spec.dropout > 0;
    const int64_t width = std::max(gathers_x ? spec.input_size : 0, drops ? D * P : 0);
    input_rows = memory.take<T>(T_ * B * width);
  }

  Dims dims(int64_t layer) const { return {T_, B, spec.layer_input(layer), H, P, spec.proj_size > 0}; }
  Partition how(int64_t layer, bool backward, const Options& options) const {
    return choose(step_problem(spec, k, dims(layer), backward), current_device(), options);
  }
  void sizes(int64_t layer, int64_t direction, Sequence& s) const {
    s.dims = dims(layer), s.lengths = call.lengths, s.reverse = direction == 1;
  }

  void* on_tape(size_t offset) const { return call.tape + offset; }
  const TapeLayout::Layer& kept(int64_t layer) const { return tape.layers[static_cast<size_t>(layer)]; }

  void common(int64_t layer, int64_t direction, const Matrix<const T>& x, const Strided& y, const LayerWeights& weights,
              Sequence& s) const {
    const int64_t index = layer * D + direction;
    sizes(layer, direction, s);
    s.x = x.data, s.x_stride = x.stride;
    s.y = columns<T>(y, direction * P);
    s.h0 = part<T>(call.h0, index, B, P), s.c0 = part<T>(call.c0, index, B, H);
    s.weights = weights;
    if (!call.tape) return;
    s.saved = on_tape(kept(layer).saved[static_cast<size_t>(direction)]);
    if (k.has_cell) s.cells = on_tape(kept(layer).cells[static_cast<size_t>(direction)]);
  }

  Dropout dropout(int64_t layer) const {
    Dropout d = layer_dropout(spec, layer, call.dropout_seed, call.tape != nullptr);
    d.seed_at = seed_at;
    return d;
  }

  // A layer's input; `below` is where the layer below has put its output.
  Matrix<const T> input(int64_t layer, const Strided& below, Stream stream) const {
    const Strided& from = layer ? below : call.x;
    const int64_t width = spec.layer_input(layer), stride = even_stride(from, B, width);
    const Dropout drop = dropout(layer);
    if (stride && !drop.active && (layer || !call.lengths)) return {static_cast<const T*>(from.data), stride};
    const InputRows<T> rows{{B, T_, call.lengths, false}, width, view<const T>(from), drop, input_rows};
    launch_elements(T_ * B, width, stream, gather_input<T>, rows);
    return {input_rows, width};
  }

  void begin(Context::Parts& parts, Stream stream, const Options& options) {
    seed_at = options.dropout_seed;
    parts.products[0].begin(stream, blas[0], options.tf32);
    if (D == 2) parts.products[1].begin(parts.side.stream(), blas[1], options.tf32);
  }

  // Both directions side by side: f(direction, stream, products).
  template <class F> void directions(Context::Parts& parts, Stream stream, F f) const {
    if (D == 2) {
      parts.side.fork(stream);
      f(1, parts.side.stream(), parts.products[1]);
    }
    f(0, stream, parts.products[0]);
    if (D == 2) parts.side.join(stream);
  }

  const Spec& spec;
  const Forward& call;
  const Kernels& k;
  const int64_t T_, B, H, P, D, last;
  TapeLayout tape;
  std::byte* blas[2];
  T* input_rows;  // (T B, widest): a layer's input where it cannot be read as it lies
  const uint64_t* seed_at = nullptr;
};

template <class T> class ForwardNetwork : Network<T> {
  using Base = Network<T>;
  using Base::spec, Base::call, Base::k, Base::T_, Base::B, Base::H, Base::P, Base::D, Base::last;

 public:
  ForwardNetwork(const Spec& spec_, const Forward& call_, std::byte* workspace) : Base(spec_, call_) {
    Carver memory(workspace);
    Base::common_memory(memory);
    for (int i = 0; i < 2; ++i) {
      hidden_[i] = memory.take<T>(!call.tape && spec.num_layers > i + 1 ? T_ * B * D * P : 0);
    }
    for (int64_t direction = 0; direction < D; ++direction) {
      size_t size = 0;
      for (int64_t layer = 0; layer < std::min<int64_t>(spec.num_layers, 2); ++layer) {
        Sequence s{};
        Base::sizes(layer, direction, s);
        size = std::max(size, k.forward_workspace(s));
      }
      sequence_[direction] = memory.take<std::byte>(static_cast<int64_t>(size));
    }
    bytes = memory.used();
  }

  void run(Context::Parts& parts, const std::vector<LayerWeights>& weights, Stream stream, const Options& options) {
    Base::begin(parts, stream, options);
    for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
      const Matrix<const T> x = Base::input(layer, layer ? output(layer - 1) : Strided{}, stream);
      const Partition how = Base::how(layer, false, options);
      Base::directions(parts, stream, [&](int64_t direction, Stream own, Products& products) {
        const int64_t index = layer * D + direction;
        Sequence s{};
        Base::common(layer, direction, x, output(layer), weights[static_cast<size_t>(index)], s);
        s.how = how;
        s.h_n = part<T>(call.h_n, index, B, P), s.c_n = part<T>(call.c_n, index, B, H);
        k.forward(s, sequence_[direction], own, products);
      });
    }
  }

  size_t bytes;

 private:
  Strided output(int64_t layer) const {
    if (layer == last) return call.y;
    return dense(call.tape ? Base::on_tape(Base::kept(layer).hidden) : hidden_[layer % 2], B, D * P);
  }

  T* hidden_[2];  // (T, B, D P): outputs of layers, in turns, where there is no tape
  std::byte* sequence_[2];
};

template <class T> class BackwardNetwork : Network<T> {
  using Base = Network<T>;
  using Base::spec, Base::k, Base::T_, Base::B, Base::H, Base::P, Base::D, Base::last;

 public:
  BackwardNetwork(const Spec& spec_, const Backward& call_, std::byte* workspace) : Base(spec_, call_), call(call_) {
    Carver memory(workspace);
    Base::common_memory(memory);
    for (int i = 0; i < 2; ++i) gradient_[i] = memory.take<T>(spec.num_layers > i + 1 ? T_ * B * D * P : 0);
    const bool scatters = call.dx.data && (call.lengths || !even_stride(call.dx, B, spec.input_size));
    dx_rows_ = scatters ? memory.take<T>(T_ * B * spec.input_size) : nullptr;
    for (int64_t direction = 0; direction < D; ++direction) {
      size_t size = 0;
      for (int64_t layer = 0; layer < std::min<int64_t>(spec.num_layers, 2); ++layer) {
        SequenceGradient s{};
        Base::sizes(layer, direction, s);
        size = std::max(size, k.backward_workspace(s));
      }
      sequence_[direction] = memory.take<std::byte>(static_cast<int64_t>(size));
    }
    bytes = memory.used();
  }

  void run(Context::Parts& parts, const std::vector<LayerWeights>& weights, Stream stream, const Options& options) {
    Base::begin(parts, stream, options);
    for (int64_t layer = last; layer >= 0; --layer) {
      const Matrix<const T> x = Base::input(layer, layer ? output(layer - 1) : Strided{}, stream);
      const Partition how = Base::how(layer, true, options);
      const auto sequence = [&](int64_t direction) {
        return gradient(how, layer, direction, x, weights[static_cast<size_t>(layer * D + direction)]);
      };
      Base::directions(parts, stream, [&](int64_t direction, Stream own, Products& products) {
        k.backward_steps(sequence(direction), sequence_[direction], own, products);
      });
      for (int64_t direction = 0; direction < D; ++direction) {  // one after the other: both add to dx
        k.backward_products(sequence(direction), sequence_[direction], stream, parts.products[0]);
      }
    }
    if (!dx_rows_) return;
    const InputGradient<T> rows{{B, T_, call.lengths, false}, spec.input_size, dx_rows_, view<T>(call.dx)};
    launch_elements(T_ * B, spec.input_size, stream, scatter_gradient<T>, rows);
  }

  size_t bytes;

 private:
  Strided output(int64_t layer) const {
    return layer == last ? call.y : dense(Base::on_tape(Base::kept(layer).hidden), B, D * P);
  }
  // Of a layer's input.
  Matrix<T> input_gradient(int64_t layer) const {
    if (layer) return {gradient_[(layer - 1) % 2], D * P};
    if (dx_rows_) return {dx_rows_, spec.input_size};
    return {static_cast<T*>(call.dx.data), even_stride(call.dx, B, spec.input_size)};
  }

  SequenceGradient gradient(const Partition& how, int64_t layer, int64_t direction, const Matrix<const T>& x,
                            const LayerWeights& weights) const {
    const int64_t index = layer * D + direction;
    SequenceGradient s{};
    Base::common(layer, direction, x, output(layer), weights, s);
    s.how = how;
    const Strided dy = layer == last ? call.dy : dense(input_gradient(layer + 1).data, B, D * P);
    s.dy = columns<T>(dy, direction * P);
    if (layer < last) s.dropout = Base::dropout(layer + 1);
    s.column = direction * P;
    s.dh_n = part<T>(call.dh_n, index, B, P), s.dc_n = part<T>(call.dc_n, index, B, H);
    s.dh0 = part<T>(call.dh0, index, B, P), s.dc0 = part<T>(call.dc0, index, B, H);
    const Matrix<T> dx = input_gradient(layer);
    s.dx = dx.data, s.dx_stride = dx.stride;
    s.add_dx = direction == 1;
    s.gradients = call.gradients[index];
    return s;
  }

  const Backward& call;
  T* gradient_[2];  // (T, B, D P): gradients of layers' inputs, in turns
  T* dx_rows_;      // (T B, I): dx where the products cannot write it as it lies, or null
  std::byte* sequence_[2];
};

template <class Function> auto with_type(const Spec& spec, Function&& function) {
  switch (spec.dtype) {
    case DType::float64:
      return function(double{});
    case DType::float16:
      return function(Half{});
    case DType::bfloat16:
      return function(BFloat16{});
    default:
      return function(float{});
  }
}

}  // namespace

std::vector<std::pair<int64_t, int64_t>> tape_parts(const Spec& spec) {
  const Kernels& k = kernels(spec.cell, spec.dtype);
  const int64_t computed = spec.dtype == DType::float64 ? 8 : 4;  // bytes of a gate or a c
  std::vector<std::pair<int64_t, int64_t>> widths;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    for (int64_t direction = 0; direction < spec.directions(); ++direction) {
      widths.emplace_back(k.saved * spec.hidden_size, computed);
      if (k.has_cell) widths.emplace_back(spec.hidden_size, computed);
    }
    if (layer + 1 < spec.num_layers) {
      widths.emplace_back(spec.directions() * spec.output_size(), static_cast<int64_t>(spec.itemsize()));
    }
  }
  return widths;
}

TapeLayout tape_layout(const Spec& spec, int64_t steps, int64_t rows) {
  constexpr size_t alignment = 256;
  const Kernels& k = kernels(spec.cell, spec.dtype);
  const auto widths = tape_parts(spec);
  auto next = widths.begin();
  TapeLayout layout{{}, 0};
  const auto take = [&] {
    const size_t offset = layout.bytes;
    auto bytes = static_cast<size_t>(next->second);
    bool too_large = false;
    for (const int64_t n : {steps, rows, next->first}) {
      too_large |= __builtin_mul_overflow(bytes, static_cast<size_t>(n), &bytes);
    }
    if (too_large || __builtin_add_overflow(offset, bytes, &layout.bytes) || layout.bytes > PTRDIFF_MAX - alignment) {
      throw std::bad_alloc();
    }
    layout.bytes = (layout.bytes + alignment - 1) / alignment * alignment;
    ++next;
    return offset;
  };
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    TapeLayout::Layer kept{};
    for (int64_t direction = 0; direction < spec.directions(); ++direction) {
      kept.saved.push_back(take());
      if (k.has_cell) kept.cells.push_back(take());
    }
    kept.hidden = layer + 1 < spec.num_layers ? take() : layout.bytes;
    layout.layers.push_back(std::move(kept));
  }
  return layout;
}

void read_lengths(const void* from, bool wide, int64_t rows, int64_t steps, int64_t* to, Stream stream) {
  const auto read = [&]<class Int>(const Int* lengths) {
    launch_elements(rows, 1, stream, clamp_lengths<Int>, Lengths<Int>{lengths, steps, to}, rows);
  };
  if (wide) {
    read(static_cast<const int64_t*>(from));
  } else {
    read(static_cast<const int32_t*>(from));
  }
}

size_t workspace(const Spec& spec, const Forward& call) {
  return with_type(spec, [&]<class T>(T) { return ForwardNetwork<T>(spec, call, nullptr).bytes; });
}

size_t workspace(const Spec& spec, const Backward& call) {
  return with_type(spec, [&]<class T>(T) { return BackwardNetwork<T>(spec, call, nullptr).bytes; });
}

void forward(Context& context, const Spec& spec, const std::vector<LayerWeights>& weights, const Forward& call,
             std::byte* workspace, Stream stream, const Options& options) {
  with_type(spec, [&]<class T>(T) {
    ForwardNetwork<T>(spec, call, workspace).run(context.parts(), weights, stream, options);
  });
}

void backward(Context& context, const Spec& spec, const std::vector<LayerWeights>& weights, const Backward& call,
              std::byte* workspace, Stream stream, const Options& options) {
  with_type(spec, [&]<class T>(T) {
    BackwardNetwork<T>(spec, call, workspace).run(context.parts(), weights, stream, options);
  });
}

std::string describe_device() {
  const std::string device = device_name();
  if (device.empty()) return "no device";
  const Device d = current_device();
  std::string text = device + " with " + std::to_string(d.processors) + " SMs; " + name(Way::step_by_step);
  for (const Way way : {Way::one_sm, Way::cluster, Way::grid}) {
    if (way == Way::cluster && d.cluster_blocks < 2) continue;
    text += std::string(", ") + name(way);
    if (way == Way::cluster) text += " of up to " + std::to_string(d.cluster_blocks) + " blocks";
  }
  return text;
}

std::string explain_plan(const Spec& spec, int64_t steps, int64_t rows, bool backward, const Options& options) {
  const Kernels& k = kernels(spec.cell, spec.dtype);
  const Device device = current_device();
  std::string table;
  for (int64_t layer = 0; layer < spec.num_layers; ++layer) {
    const Dims dims{steps, rows, spec.layer_input(layer), spec.hidden_size, spec.output_size(), spec.proj_size > 0};
    const StepProblem problem = step_problem(spec, k, dims, backward);
    std::vector<Cost> all = costs(problem, device, options);
    std::stable_sort(all.begin(), all.end(),
                     [](const Cost& a, const Cost& b) { return a.microseconds < b.microseconds; });
    for (const Cost& cost : all) {
      char line[160];
      const Partition& how = cost.how;
      std::snprintf(line, sizeof(line), "layer %d, %-12s %8.2f us a step", static_cast<int>(layer), name(how.way),
                    cost.microseconds);
      table += line;
      if (how.way != Way::step_by_step) {
        std::snprintf(line, sizeof(line), "; %d blocks of %d units for %d rows each", how.blocks, how.units, how.rows);
        table += line;
        if (how.tf32) table += ", TF32";
      }
      table += '\n';
    }
  }
  return table;
}

}  // namespace fastrnn::cuda

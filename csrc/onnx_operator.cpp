#include "onnx_operator.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "half.h"

namespace fastrnn::onnx {
namespace {

// --- shapes ---------------------------------------------------------------------------------------------------------

const char* const names[] = {"X", "W", "R", "B", "initial_h", "initial_c", "P"};

std::string text(const Shape& shape) {
  std::string out = "(";
  for (const int64_t& size : shape) out += (&size == shape.begin() ? "" : ", ") + std::to_string(size);
  if (shape.rank() > Shape::kept) out += ", ...";
  return out + (shape.rank() == 1 ? ",)" : ")");
}

void check(const char* name, const Tensor& tensor, const Shape& wanted) {
  if (!tensor.absent() && tensor.shape != wanted) {
    throw std::invalid_argument(std::string(name) + ": expected shape " + text(wanted) + ", got " + text(tensor.shape));
  }
}

void check_rank(const Inputs& in, int input, size_t rank) {
  if (in[input].shape.rank() != rank) {
    throw std::invalid_argument(std::string(names[input]) + ": expected " + std::to_string(rank) + " axes, got shape " +
                                text(in[input].shape));
  }
}

// --- elements -------------------------------------------------------------------------------------------------------

template <class E> using Computed = std::conditional_t<std::is_same_v<E, double>, double, float>;
template <class E> constexpr bool as_stored = std::is_same_v<E, Computed<E>>;

float to_float(float value) { return value; }
double to_float(double value) { return value; }
void store(float value, float& to) { to = value; }
void store(double value, double& to) { to = value; }
void store(float value, Half& to) { to = to_half(value); }
void store(float value, BFloat16& to) { to = to_bfloat16(value); }

template <class E> void load(const E* from, int64_t count, Computed<E>* to) {
  std::transform(from, from + count, to, [](E value) { return to_float(value); });
}
template <class E> void save(const Computed<E>* from, int64_t count, E* to) {
  for (int64_t i = 0; i < count; ++i) store(from[i], to[i]);
}

template <class C> class Buffer {
 public:
  explicit Buffer(int64_t count) : memory_(allocate(std::max<size_t>(1, static_cast<size_t>(count)) * sizeof(C))) {}
  C* data() const { return reinterpret_cast<C*>(memory_.get()); }

 private:
  Memory memory_;
};

// --- weights --------------------------------------------------------------------------------------------------------

// Where in ONNX' order (RNN i; LSTM i o f c; GRU z r h) the core's gates are, one after the other.
std::vector<int> gate_order(const Spec& spec) {
  if (spec.gates() == 4) return {0, 2, 3, 1};
  if (spec.gates() == 3) return {1, 0, 2};
  return {0};
}

template <class E> class Arranged {
  using C = Computed<E>;

 public:
  Arranged(const Spec& spec, const Inputs& in) : memory_(size(spec)) {
    const int64_t D = spec.directions(), G = spec.gates(), H = spec.hidden_size, I = spec.input_size;
    const std::vector<int> order = gate_order(spec), peepholes = {0, 2, 1};  // i f o, in ONNX i o f
    C* next = memory_.data();
    const auto take = [&](const Tensor& tensor, int64_t offset, const std::vector<int>& blocks, int64_t width) {
      const E* from = static_cast<const E*>(tensor.data) + offset;
      C* const to = next;
      for (const int block : blocks) load(from + block * H * width, H * width, next), next += H * width;
      return to;
    };
    for (int64_t d = 0; d < D; ++d) {
      LayerWeights layer{};
      layer.w_ih = take(in[W], d * G * H * I, order, I);
      layer.w_hh = take(in[R], d * G * H * H, order, H);
      if (spec.bias) layer.b_ih = take(in[B], 2 * d * G * H, order, 1);
      if (spec.bias) layer.b_hh = take(in[B], (2 * d + 1) * G * H, order, 1);
      if (spec.peephole()) layer.w_peephole = take(in[P], d * 3 * H, peepholes, 1);
      layers.push_back(layer);
    }
  }

  std::vector<LayerWeights> layers;

 private:
  static int64_t size(const Spec& spec) {
    const int64_t gates = spec.gates() * (spec.input_size + spec.hidden_size + 2);
    return spec.directions() * spec.hidden_size * (gates + 3);
  }
  Buffer<C> memory_;
};

// --- a call ---------------------------------------------------------------------------------------------------------

// Where the operator's axes are: offsets in elements.
struct Layout {
  int64_t T, N, D, H, I;  // N rows in the batch
  bool batch_first;

  int64_t x(int64_t t, int64_t n) const { return (batch_first ? n * T + t : t * N + n) * I; }
  int64_t y(int64_t t, int64_t d, int64_t n) const {
    return (batch_first ? (n * T + t) * D + d : (t * D + d) * N + n) * H;
  }
  int64_t state(int64_t d, int64_t n) const { return (batch_first ? n * D + d : d * N + n) * H; }
  bool core_states() const { return !batch_first || D == 1 || N == 1; }  // as the core has them
  bool core_y() const { return batch_first || D == 1 || N == 1; }        // all directions of a row side by side
};

Layout layout(const Attributes& a, const Spec& spec, const Shape& x) {
  const int64_t T = x[a.batch_first ? 1 : 0], N = x[a.batch_first ? 0 : 1];
  return {T, N, spec.directions(), spec.hidden_size, spec.input_size, a.batch_first};
}

std::vector<int64_t> lengths_of(const Layout& at, const Tensor& sequence_lens) {
  const auto* given = static_cast<const int32_t*>(sequence_lens.data);
  std::vector<int64_t> lengths(given, given + at.N);
  for (int64_t n = 0; n < at.N; ++n) {
    if (lengths[n] < 0 || lengths[n] > at.T) {
      throw std::invalid_argument("sequence_lens: expected values in 0 ... " + std::to_string(at.T) + ", got " +
                                  std::to_string(lengths[n]) + " at index " + std::to_string(n));
    }
  }
  return lengths;
}

// A state in the core's order of axes, (D, N, H): the caller's memory where that will do, none where none is needed.
template <class E> class State {
  using C = Computed<E>;

 public:
  State(const Layout& at, void* theirs, bool needed) : at_(at), tensor_(static_cast<E*>(theirs)) {
    if (needed && !(tensor_ && as_stored<E> && at.core_states())) own_.emplace(at.D * at.N * at.H);
  }
  C* data() const {
    if (own_) return own_->data();
    if constexpr (as_stored<E>) return tensor_;
    return nullptr;
  }
  const C* loaded() const {  // for an input
    if (own_) each([&](E* theirs, C* ours) { load<E>(theirs, at_.H, ours); });
    return data();
  }
  void store(const std::vector<int64_t>& lengths) const {  // for an output
    for (size_t n = 0; n < lengths.size(); ++n) {
      if (lengths[n]) continue;
      for (int64_t d = 0; d < at_.D; ++d)
        std::fill_n(data() + (d * at_.N + static_cast<int64_t>(n)) * at_.H, at_.H, C{});
    }
    if (tensor_ && own_) each([&](E* theirs, C* ours) { save<E>(ours, at_.H, theirs); });
  }

 private:
  template <class Function> void each(const Function& function) const {
    for (int64_t d = 0; d < at_.D; ++d) {
      for (int64_t n = 0; n < at_.N; ++n) function(tensor_ + at_.state(d, n), own_->data() + (d * at_.N + n) * at_.H);
    }
  }

  Layout at_;
  E* tensor_;
  std::optional<Buffer<C>> own_;
};

// A reverse direction on its own runs the core forward over sequences that are turned: by strides that go back where
// all sequences are of one length, by copies else.
template <class E> struct Call {
  using C = Computed<E>;
  const Attributes& a;
  const Spec& spec;
  const Inputs& in;
  const Outputs& out;
  Layout at;
  std::vector<int64_t> lengths;  // none: all T
  bool copy_x, turn;             // turn: rows are turned in copies

  int64_t length(int64_t n) const { return lengths.empty() ? at.T : lengths[n]; }
  int64_t source(int64_t t, int64_t n) const { return turn && t < length(n) ? length(n) - 1 - t : t; }

  Strided over_time(C* data, int64_t time, int64_t row) const {
    if (a.reverse && !turn && at.T > 0) return {data + (at.T - 1) * time, -time, row, 1};
    return {data, time, row, 1};
  }

  void load_x(C* to) const {
    const E* from = static_cast<const E*>(in[X].data);
    for (int64_t n = 0; n < at.N; ++n) {
      for (int64_t t = 0; t < length(n); ++t) load(from + at.x(source(t, n), n), at.I, to + (t * at.N + n) * at.I);
    }
  }
  void save_y(const C* from) const {
    E* to = static_cast<E*>(out[Y]);
    for (int64_t t = 0; at.N > 0 && t < at.T; ++t) {
      for (int64_t d = 0; d < at.D; ++d) {
        for (int64_t n = 0; n < at.N; ++n) {
          save(from + ((source(t, n) * at.N + n) * at.D + d) * at.H, at.H, to + at.y(t, d, n));
        }
      }
    }
  }

  void run(const std::optional<Packed>& packed) const {
    std::optional<Buffer<C>> x, y;
    Forward call{};
    call.steps = at.T, call.rows = at.N, call.threads = a.threads;
    call.lengths = lengths.empty() ? nullptr : lengths.data();
    if constexpr (as_stored<E>) {
      if (!copy_x) call.x = over_time(static_cast<E*>(in[X].data), at.x(1, 0), at.x(0, 1));
      if (out[Y] && at.core_y() && !turn) {
        const int64_t width = at.D * at.H;
        const Strided whole =
            at.batch_first ? Strided{nullptr, width, at.T * width, 1} : Strided{nullptr, at.N * width, width, 1};
        call.y = over_time(static_cast<E*>(out[Y]), whole.time, whole.row);
      }
    }
    if (!call.x.data) {
      x.emplace(at.T * at.N * at.I);
      load_x(x->data());
      call.x = over_time(x->data(), at.N * at.I, at.I);
    }
    if (!call.y.data) {
      const int64_t width = at.D * at.H;
      y.emplace(at.T * at.N * width);
      call.y = over_time(y->data(), at.N * width, width);
    }
    const auto given = [&](int input) { return State<E>(at, in[input].data, in[input].data); };
    const State<E> h0 = given(initial_h), c0 = given(initial_c);
    const State<E> h_n(at, out[Y_h], true), c_n(at, out[Y_c], spec.has_cell());
    call.h0 = h0.loaded(), call.h_n = h_n.data();
    call.c0 = c0.loaded(), call.c_n = c_n.data();
    if (packed) {
      forward(spec, *packed, call);
    } else {
      forward(spec, Arranged<E>(spec, in).layers, call);
    }
    if (y && out[Y]) save_y(y->data());
    h_n.store(lengths);
    if (spec.has_cell()) c_n.store(lengths);
  }
};

template <class Function> auto with_element(Element element, const Function& function) {
  switch (element) {
    case Element::float32:
      return function(float{});
    case Element::float64:
      return function(double{});
    case Element::float16:
      return function(Half{});
    case Element::bfloat16:
      break;
  }
  return function(BFloat16{});
}

}  // namespace

Network network(const Attributes& a, const Inputs& in) {
  check_rank(in, W, 3);
  check_rank(in, R, 3);
  Spec spec = a.spec;
  spec.dtype = a.element == Element::float64 ? DType::float64 : DType::float32;
  spec.input_size = in[W].shape[2];
  if (!spec.hidden_size) spec.hidden_size = in[R].shape[2];
  spec.bias = !in[B].absent();
  const int64_t D = spec.directions(), G = spec.gates(), H = spec.hidden_size, I = spec.input_size;
  if (H < 1) throw std::invalid_argument("R: expected a hidden size of at least 1, got shape " + text(in[R].shape));
  if (I < 1) throw std::invalid_argument("W: expected an input size of at least 1, got shape " + text(in[W].shape));
  if (H != in[R].shape[2]) {
    throw std::invalid_argument("R: expected a hidden size of " + std::to_string(H) + ", got shape " +
                                text(in[R].shape));
  }
  if (spec.peephole() && in[P].absent()) throw std::invalid_argument("P: expected a tensor, got none");
  check("W", in[W], {D, G * H, I});
  check("R", in[R], {D, G * H, H});
  check("B", in[B], {D, 2 * G * H});
  check("P", in[P], {D, 3 * H});
  return {spec, std::nullopt};
}

Network prepare(const Attributes& a, const Inputs& in) {
  Network net = network(a, in);
  with_element(a.element,
               [&](auto element) { net.packed = pack(net.spec, Arranged<decltype(element)>(net.spec, in).layers); });
  return net;
}

std::array<Shape, all_outputs> output_shapes(const Attributes& a, const Network& net, const Inputs& in,
                                             const Tensor& sequence_lens) {
  check_rank(in, X, 3);
  const auto [T, N, D, H, I, batch_first] = layout(a, net.spec, in[X].shape);
  check("X", in[X], batch_first ? Shape{N, T, I} : Shape{T, N, I});
  const Shape state = batch_first ? Shape{N, D, H} : Shape{D, N, H};
  check("initial_h", in[initial_h], state);
  check("initial_c", in[initial_c], state);
  check("sequence_lens", sequence_lens, {N});
  return {batch_first ? Shape{N, T, D, H} : Shape{T, D, N, H}, state, state};
}

void run(const Attributes& a, const Network& net, const Inputs& in, const Tensor& sequence_lens, const Outputs& out) {
  const Layout at = layout(a, net.spec, in[X].shape);
  std::vector<int64_t> lengths;
  if (sequence_lens.data) lengths = lengths_of(at, sequence_lens);
  if (at.T == 0) lengths.assign(static_cast<size_t>(at.N), 0);
  const bool turn = a.reverse && !lengths.empty();
  with_element(a.element, [&](auto element) {
    using E = decltype(element);
    Call<E>{a, net.spec, in, out, at, std::move(lengths), !as_stored<E> || turn, turn}.run(net.packed);
  });
}

}  // namespace fastrnn::onnx

// Calls on NumPy arrays: arguments are checked, results allocated, and tapes and packed weights become objects.
#include "bindings.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <memory>
#include <optional>

namespace fastrnn::python {
namespace {

// --- arrays ---------------------------------------------------------------------------------------------------------
//
// What has been checked is read only after all is checked. No code of the caller's may run in between, such as a
// method of a subclass: it could take an array's memory away (`resize(refcheck=False)`).

Shape shape_of(const py::array& a) { return Shape(a.shape(), a.shape() + a.ndim()); }

py::dtype numpy_dtype(const Network& net) {
  return net.dtype == DType::float32 ? py::dtype::of<float>() : py::dtype::of<double>();
}

bool has_dtype(const Network& net, py::handle value) {
  return net.dtype == DType::float32 ? py::isinstance<py::array_t<float, 0>>(value)
                                     : py::isinstance<py::array_t<double, 0>>(value);
}

// An array of numpy.ma, whose mask would be overlooked.
bool is_masked(py::handle value) {
  const bool plain = Py_TYPE(value.ptr()) == py::detail::npy_api::get().PyArray_Type_;
  if (plain || !py::isinstance<py::array>(value)) return false;
  const py::object masked = py::module_::import("numpy").attr("ma").attr("MaskedArray");
  return PyObject_TypeCheck(value.ptr(), reinterpret_cast<PyTypeObject*>(masked.ptr()));
}

py::array checked_array(const Network& net, py::handle value, const std::string& name) {
  const std::string wanted = std::string("a NumPy array of ") + net.dtype_name();
  if (!py::isinstance<py::array>(value)) wrong_type(name, wanted, type_name(value));
  py::array array = py::reinterpret_borrow<py::array>(value);
  if (!has_dtype(net, value)) {
    const char kind = array.dtype().kind();
    const bool real = kind == 'f' || kind == 'i' || kind == 'u';
    const std::string hint = real ? "; use " + name + ".astype(np." + net.dtype_name() + ")" : "";
    wrong_type(name, wanted, "dtype " + py::cast<std::string>(py::str(array.dtype())) + hint);
  }
  if (is_masked(value)) wrong_type(name, wanted, "a masked one");
  return array;
}

void make_read_only(const py::array& a) {
  py::detail::array_proxy(a.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
}

constexpr int aligned_flag = py::detail::npy_api::NPY_ARRAY_ALIGNED_;

// In C order, and a plain array.
py::array contiguous_copy(const py::array& a) {
  constexpr int copied_flag = 0x0020;  // NPY_ARRAY_ENSURECOPY
  constexpr int flags = copied_flag | aligned_flag | py::array::c_style | py::detail::npy_api::NPY_ARRAY_ENSUREARRAY_;
  PyObject* copy = py::detail::npy_api::get().PyArray_FromAny_(a.ptr(), nullptr, 0, 0, flags, nullptr);
  if (!copy) throw py::error_already_set();
  return py::reinterpret_steal<py::array>(copy);
}

// Strides in whole elements, which memory that is not aligned does not have.
py::array with_element_strides(const Network& net, const py::array& a) {
  bool usable = (a.flags() & aligned_flag) != 0;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) usable &= a.strides(i) % static_cast<py::ssize_t>(net.itemsize()) == 0;
  return usable ? a : contiguous_copy(a);
}

py::array contiguous(const py::array& a) {
  const bool usable = (a.flags() & py::array::c_style) && (a.flags() & aligned_flag);
  return usable ? a : contiguous_copy(a);
}

py::array checked_state(const Network& net, py::handle value, const std::string& name, const Shape& shape) {
  const py::array array = checked_array(net, value, name);
  if (shape_of(array) != shape) wrong_value(name, "shape " + text(shape), text(shape_of(array)));
  return contiguous(array);
}

Memory allocate_for(size_t bytes, const std::string& what) {
  try {
    return allocate(bytes);
  } catch (const std::bad_alloc&) {
    throw NoMemory(what + ", " + std::to_string(bytes) + " bytes");
  }
}

// An array of the core's memory, which finds the next call's where this one's was.
py::array own_array(const py::dtype& dtype, const Shape& shape, Memory memory) {
  auto kept = std::make_unique<Memory>(std::move(memory));
  const py::capsule owner(kept.get(), [](void* p) { delete static_cast<Memory*>(p); });
  return py::array(dtype, shape, kept.release()->get(), owner);
}

// A result. Those of a page or more are of the core's memory, as are those that must not be resized: where rows are
// whole lines of a cache, no two threads then write one.
py::array empty(const Network& net, const Shape& shape, bool may_be_resized = true) {
  constexpr size_t large = size_t{4} << 10;
  size_t bytes = net.itemsize();  // as if axes of no elements had one: NumPy refuses what would overflow then
  bool too_large = false, none = false;
  for (const int64_t n : shape) {
    if (n == 0) none = true;
    too_large |= __builtin_mul_overflow(bytes, static_cast<size_t>(n ? n : 1), &bytes);
  }
  if (too_large || bytes > PTRDIFF_MAX) throw NoMemory("results of shape " + text(shape));
  if (may_be_resized && (none || bytes < large)) return py::array(numpy_dtype(net), shape);
  return own_array(numpy_dtype(net), shape, allocate_for(none ? 0 : bytes, "results of shape " + text(shape)));
}
// For outputs that this file has just made.
void* data(const py::array& a) { return const_cast<void*>(a.data()); }
const void* data_or_null(const std::optional<py::array>& a) { return a ? a->data() : nullptr; }

std::vector<void*> pointers(const std::vector<py::array>& arrays) {
  std::vector<void*> all;
  for (const py::array& array : arrays) all.push_back(data(array));
  return all;
}

Strided strided(const Network& net, const Extent& e, const py::array& a) {
  Shape strides;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) {
    strides.push_back(a.strides(i) / static_cast<py::ssize_t>(net.itemsize()));
  }
  return strided(net, e, data(a), shape_of(a), strides);
}

std::vector<py::array> checked_weights(const Network& net, const py::sequence& weights) {
  const auto expected = parameter_shapes(net);
  if (weights.size() != expected.size()) {
    wrong_value("weights", std::to_string(expected.size()) + " arrays", std::to_string(weights.size()));
  }
  std::vector<py::array> checked;
  for (size_t i = 0; i < expected.size(); ++i) {
    checked.push_back(checked_state(net, py::object(weights[i]), expected[i].first, expected[i].second));
  }
  return checked;
}

// Of a tuple or list; a subclass is not asked for them.
py::tuple own_items(py::handle value) {
  if (py::isinstance<py::tuple>(value)) return py::reinterpret_borrow<py::tuple>(value);
  PyObject* items = PyList_AsTuple(value.ptr());
  if (!items) throw py::error_already_set();
  return py::reinterpret_steal<py::tuple>(items);
}

// h and c of a state argument, each present or not.
struct StatePair {
  std::optional<py::array> h, c;
};

StatePair checked_state_pair(const Network& net, const Extent& e, py::handle value, const char* name,
                             const char* h_name, const char* c_name) {
  StatePair pair;
  if (value.is_none()) return pair;
  py::object h = py::reinterpret_borrow<py::object>(value), c = py::none();
  const bool is_pair = py::isinstance<py::tuple>(value) || py::isinstance<py::list>(value);
  if (net.has_cell()) {
    const std::string wanted = std::string("a tuple (") + h_name + ", " + c_name + ")";
    if (!is_pair) wrong_type(name, wanted, type_name(value));
    const py::tuple items = own_items(value);
    if (items.size() != 2) wrong_value(name, wanted, "one of length " + std::to_string(items.size()));
    h = items[0], c = items[1];
  } else if (is_pair) {
    wrong_type(name, std::string("the array ") + h_name, type_name(value));
  }
  if (!h.is_none()) pair.h = checked_state(net, h, h_name, state_shape(net, e, net.output_size()));
  if (!c.is_none()) pair.c = checked_state(net, c, c_name, state_shape(net, e, net.hidden_size));
  return pair;
}

py::array lengths_as_array(py::handle value) {
  if (is_masked(value)) wrong_type("lengths", "integers", "a masked array");
  try {
    return py::module_::import("numpy").attr("asarray")(value);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_ValueError) && !error.matches(PyExc_TypeError)) throw;
    wrong_type("lengths", "integers", type_name(value));
  }
}

std::vector<int64_t> checked_lengths(const Extent& e, const py::array& array) {
  const char kind = array.dtype().kind();
  const bool empty_list = kind == 'f' && array.size() == 0;  // NumPy's default for []
  if (kind != 'i' && kind != 'u' && !empty_list) {
    wrong_type("lengths", "integers", "dtype " + py::cast<std::string>(py::str(array.dtype())));
  }
  const bool scalar = !e.batched && array.ndim() == 0;
  if (!scalar && shape_of(array) != Shape{e.rows}) {
    wrong_value("lengths", "shape " + text({e.rows}), text(shape_of(array)));
  }
  std::vector<int64_t> lengths;
  for (const py::handle item : array.attr("ravel")()) {
    int overflow = 0;
    const long long n =
        PyLong_AsLongLongAndOverflow(py::int_(py::reinterpret_borrow<py::object>(item)).ptr(), &overflow);
    if (overflow || n < 0 || n > e.steps) {
      wrong_value("lengths", "values in 0 ... " + std::to_string(e.steps),
                  py::cast<std::string>(py::str(item)) + " at index " + std::to_string(lengths.size()));
    }
    lengths.push_back(n);
  }
  return lengths;
}

// The checked arguments of a forward call.
struct Call {
  Extent extent;
  py::array x;
  Strided x_memory;  // as it was when it was checked: x is the caller's, who can give it another shape
  StatePair state;
  std::optional<std::vector<int64_t>> lengths;

  Call(const Network& net, py::handle x_argument, py::handle state_argument, py::handle lengths_argument) {
    std::optional<py::array> given_lengths;
    if (!lengths_argument.is_none()) given_lengths = lengths_as_array(lengths_argument);
    x = checked_array(net, x_argument, "x");
    const std::string batched = net.batch_first ? "(B, T, " : "(T, B, ";
    const std::string size = std::to_string(net.input_size);
    if ((x.ndim() != 3 && x.ndim() != 2) || x.shape(x.ndim() - 1) != net.input_size) {
      wrong_value("x", "shape " + batched + size + ") or (T, " + size + ")", text(shape_of(x)));
    }
    extent = extent_of(net, shape_of(x));
    x = with_element_strides(net, x);
    x_memory = strided(net, extent, x);
    state = checked_state_pair(net, extent, state_argument, "state", "h0", "c0");
    if (given_lengths) lengths = checked_lengths(extent, *given_lengths);
  }

  void fill(Forward& call) const {
    call.steps = extent.steps, call.rows = extent.rows;
    call.lengths = lengths ? lengths->data() : nullptr;
    call.x = x_memory;
    call.h0 = data_or_null(state.h);
    call.c0 = data_or_null(state.c);
  }
};

// --- calls ----------------------------------------------------------------------------------------------------------

struct Outputs {
  py::array y, h_n;
  std::optional<py::array> c_n;

  Outputs(const Network& net, const Extent& e, bool for_backward = false)
      : y(empty(net, over_time(net, e, {net.width()}), !for_backward)),
        h_n(empty(net, state_shape(net, e, net.output_size()))) {
    if (net.has_cell()) c_n = empty(net, state_shape(net, e, net.hidden_size));
  }
  void fill(const Network& net, const Extent& e, Forward& call) const {
    call.y = strided(net, e, y);
    call.h_n = data(h_n);
    call.c_n = c_n ? data(*c_n) : nullptr;
  }
  py::object state() const { return c_n ? py::object(py::make_tuple(h_n, *c_n)) : py::object(h_n); }
};

template <class Weights>
py::tuple run_inference(const Network& net, const Weights& weights, const Call& arguments) {
  const Outputs out(net, arguments.extent);
  Forward call{};
  arguments.fill(call);
  out.fill(net, arguments.extent, call);
  call_forward(net, weights, call);
  return py::make_tuple(out.y, out.state());
}

py::tuple infer(const Network& net, const py::sequence& weights, py::handle x, py::handle state, py::handle lengths) {
  const Call arguments(net, x, state, lengths);
  const std::vector<py::array> arrays = checked_weights(net, weights);
  return run_inference(net, by_layer<LayerWeights>(net, pointers(arrays)), arguments);
}

py::tuple infer_prepared(const Prepared& prepared, py::handle x, py::handle state, py::handle lengths) {
  return run_inference(prepared.net(), prepared.packed(), Call(prepared.net(), x, state, lengths));
}

std::unique_ptr<Prepared> prepare(const Network& net, const py::sequence& weights) {
  const std::vector<py::array> arrays = checked_weights(net, weights);
  return std::make_unique<Prepared>(net, by_layer<LayerWeights>(net, pointers(arrays)));
}

int64_t checked_index(const char* name, py::handle value) {
  if (PyBool_Check(value.ptr()) || !PyIndex_Check(value.ptr())) wrong_type(name, "an int", type_name(value));
  const Py_ssize_t index = PyNumber_AsSsize_t(value.ptr(), nullptr);  // clipped
  if (index == -1 && PyErr_Occurred()) throw py::error_already_set();
  return index;
}

// What a forward call keeps for backward: the core's tape, copies of the states, and by reference x, y and the weights.
// Never changed once made; the caller may only read y.
struct Tape {
  py::object spec;  // the caller's own, so that a layer knows its tapes
  Network net;
  Call call;
  std::vector<py::array> weights;
  std::vector<void*> weight_memory;  // as it was when they were checked
  py::array x_as_given;
  Strided y;
  py::object y_owner;  // of its memory: the array is the caller's, who can give it another shape
  uint64_t dropout_seed;
  TapeLayout layout;
  Memory memory;

  size_t bytes() const {
    return layout.bytes + static_cast<size_t>(call.extent.steps * call.extent.rows * net.width()) * net.itemsize();
  }
  std::string text() const;

  // That x and the weights, which are the caller's, have the memory that they had.
  void check_memory() const {
    const auto check = [](const std::string& name, const py::array& array, const void* at, int64_t elements) {
      if (array.data() != at || array.size() != elements) {
        wrong_value(name, "the array as it was in the forward call", "a resized one");
      }
    };
    check("x", call.x, call.x_memory.data, call.extent.steps * call.extent.rows * net.input_size);
    const auto shapes = parameter_shapes(net);
    for (size_t i = 0; i < shapes.size(); ++i) {
      const auto& [name, shape] = shapes[i];
      int64_t elements = 1;
      for (const int64_t n : shape) elements *= n;
      check(name, weights[i], weight_memory[i], elements);
    }
  }

  // (T, B, ...) on the tape, in the caller's order of axes.
  py::array view(py::handle self, const void* at, const Shape& rest, const Shape& strides) const {
    const Extent& e = call.extent;
    const Shape shape = over_time(net, e, rest);
    Shape bytes;
    if (!e.batched) {
      bytes = {strides[0]};
    } else {
      bytes = net.batch_first ? Shape{strides[1], strides[0]} : Shape{strides[0], strides[1]};
    }
    bytes.insert(bytes.end(), strides.begin() + 2, strides.end());
    for (int64_t& stride : bytes) stride *= static_cast<int64_t>(net.itemsize());
    py::array array(numpy_dtype(net), shape, bytes, at, self);
    make_read_only(array);
    return array;
  }

  std::pair<size_t, size_t> checked_place(py::handle layer_argument, py::handle direction_argument) const {
    const int64_t layer = checked_index("layer", layer_argument);
    const int64_t direction = checked_index("direction", direction_argument);
    if (layer < 0 || layer >= net.num_layers) {
      wrong_value("layer", "0 ... " + std::to_string(net.num_layers - 1), std::to_string(layer));
    }
    if (direction < 0 || direction >= net.directions()) {
      wrong_value("direction", net.bidirectional ? "0 or 1" : "0", std::to_string(direction));
    }
    return {static_cast<size_t>(layer), static_cast<size_t>(direction)};
  }
};

py::array tape_gates(const py::object& self, py::handle layer, py::handle direction) {
  const auto& tape = py::cast<const Tape&>(self);
  const Network& net = tape.net;
  const auto [l, d] = tape.checked_place(layer, direction);
  const int64_t H = net.hidden_size, G = net.gates(), B = tape.call.extent.rows;
  const int64_t row = net.saved() * H;
  if (row == 0) {  // an RNN's one gate is its output
    const bool last = l + 1 == static_cast<size_t>(net.num_layers);
    const Strided y = last ? tape.y : Strided{nullptr, B * net.width(), net.width(), 1};
    const std::byte* base =
        last ? static_cast<const std::byte*>(y.data) : tape.memory.get() + tape.layout.layers[l].hidden;
    return tape.view(self, base + d * static_cast<size_t>(H) * net.itemsize(), {1, H}, {y.time, y.row, H, 1});
  }
  return tape.view(self, tape.memory.get() + tape.layout.layers[l].saved[d], {G, H}, {B * row, row, H, 1});
}

py::array tape_cells(const py::object& self, py::handle layer, py::handle direction) {
  const auto& tape = py::cast<const Tape&>(self);
  if (!tape.net.has_cell()) throw py::value_error("cells: only an LSTM has a cell state");
  const auto [l, d] = tape.checked_place(layer, direction);
  const int64_t H = tape.net.hidden_size;
  return tape.view(self, tape.memory.get() + tape.layout.layers[l].cells[d], {H}, {tape.call.extent.rows * H, H, 1});
}

TapeLayout checked_layout(const Network& net, const Extent& e) {
  try {
    return tape_layout(net, e.steps, e.rows);
  } catch (const std::bad_alloc&) {
    throw NoMemory("the tape, larger than any memory");
  }
}

py::tuple run_forward(const py::object& spec, const py::sequence& weights, py::handle x, py::handle state,
                      py::handle lengths, uint64_t dropout_seed) {
  const auto& net = py::cast<const Network&>(spec);
  Call arguments(net, x, state, lengths);
  std::vector<py::array> arrays = checked_weights(net, weights);
  const std::vector<void*> weight_memory = pointers(arrays);
  // The states are small: copies of them let a caller carry its own on in place.
  if (arguments.state.h) arguments.state.h = contiguous_copy(*arguments.state.h);
  if (arguments.state.c) arguments.state.c = contiguous_copy(*arguments.state.c);
  const Extent e = arguments.extent;
  const Outputs out(net, e, true);
  auto tape = std::make_unique<Tape>(Tape{spec, net, std::move(arguments), std::move(arrays), weight_memory,
                                          py::reinterpret_borrow<py::array>(x), strided(net, e, out.y), out.y.base(),
                                          dropout_seed, checked_layout(net, e), Memory()});
  tape->memory = allocate_for(tape->layout.bytes, "the tape");
  Forward call{};
  tape->call.fill(call);
  out.fill(net, e, call);
  call.tape = tape->memory.get();
  call.dropout_seed = dropout_seed;
  const auto layers = by_layer<LayerWeights>(net, weight_memory);
  call_forward(net, layers, call);
  make_read_only(out.y);
  return py::make_tuple(out.y, out.state(), py::cast(std::move(tape)));
}

py::tuple run_backward(const Tape& tape, py::handle dy_argument, py::handle dstate_argument) {
  const Network& net = tape.net;
  const Extent& e = tape.call.extent;
  std::optional<py::array> dy;
  if (!dy_argument.is_none()) {
    dy = checked_array(net, dy_argument, "dy");
    const Shape wanted = over_time(net, e, {net.width()});
    if (shape_of(*dy) != wanted) wrong_value("dy", "shape " + text(wanted), text(shape_of(*dy)));
    dy = with_element_strides(net, *dy);
    if (strided(net, e, *dy).unit != 1) dy = contiguous_copy(*dy);
  }
  const StatePair dstate = checked_state_pair(net, e, dstate_argument, "dstate", "dh_n", "dc_n");
  tape.check_memory();

  const py::array dx = empty(net, over_time(net, e, {net.input_size}));
  const py::array dh0 = empty(net, state_shape(net, e, net.output_size()));
  py::object dc0 = py::none();
  if (net.has_cell()) dc0 = empty(net, state_shape(net, e, net.hidden_size));
  std::vector<py::array> gradients;
  for (const auto& [name, shape] : parameter_shapes(net)) gradients.push_back(empty(net, shape));

  Backward call{};
  tape.call.fill(call);
  call.y = tape.y;
  call.tape = tape.memory.get();
  call.dropout_seed = tape.dropout_seed;
  if (dy) call.dy = strided(net, e, *dy);
  call.dh_n = data_or_null(dstate.h);
  call.dc_n = data_or_null(dstate.c);
  call.dx = strided(net, e, dx);
  call.dh0 = data(dh0);
  call.dc0 = net.has_cell() ? data(py::reinterpret_borrow<py::array>(dc0)) : nullptr;
  const auto outputs = by_layer<LayerGradients>(net, pointers(gradients));
  call.gradients = outputs.data();
  const auto layers = by_layer<LayerWeights>(net, tape.weight_memory);
  call_backward(net, layers, call);
  return py::make_tuple(dx, dh0, dc0, py::cast(gradients));
}

std::string Tape::text() const {
  const Extent& e = call.extent;
  const std::string rows = e.batched ? "B " + std::to_string(e.rows) : "one sequence";
  return "Tape(" + describe(net) + ", T " + std::to_string(e.steps) + ", " + rows + ", " + size_as_text(bytes()) + ")";
}

// Of what holds memory laid out for this machine. Without it the oldest protocols abort the process.
py::object no_pickle(const py::object& self, int) {
  throw py::type_error("cannot pickle '" + type_name(self) + "' object: save the layer");
}

// --- documentation ---------------------------------------------------------------------------------------------------

constexpr const char* prepared_doc =
    R"(A network for inference: a snapshot of its weights, packed once, made by `layer.prepare()`.

Call it as the layer. It may be used in many threads at once; the layer's later changes do not reach it.)";

constexpr const char* prepared_call_doc =
    R"(Inference from the packed weights; results and errors are those of a call of the layer.

T is the number of time steps, B that of rows, I `input_size`, H `hidden_size`, L `num_layers`, D 2 if bidirectional
and else 1, H_out `proj_size` where given and else H. Denormal numbers count as zero.

Args:
    x: (T, B, I); (B, T, I) with `batch_first`; or one sequence (T, I). A NumPy array of the network's dtype, with any
        strides.
    state: where to start from; None is zeros. h0 (L*D, B, H_out), and for an LSTM (h0, c0) with c0 (L*D, B, H),
        either of which may be None. Without B if x has none. Of the network's dtype.
    lengths: None (all rows have T steps) or (B,) integers in 0 ... T, in any order; for one sequence an int.

Returns:
    y, (T, B, D*H_out) in the layout of x, 0 past a row's length; and the state after each row's last step, shaped as
    `state`, to be given to the next call of a stream. Both are new arrays of the network's dtype.

Raises:
    TypeError: an argument is no NumPy array, or of another dtype, or lengths are no integers.
    ValueError: an argument has a wrong shape or value.
    MemoryError: there is no memory for the results.)";

constexpr const char* tape_doc =
    R"(What one forward call leaves for its backward calls, of which there can be any number.

It refers to x, y and the parameters: leave x and the parameters unchanged until you are done with it; y is read-only.
States are copied. `gates` and `cells` show what happened inside.)";

constexpr const char* gates_doc =
    R"(The activated gates of one layer and direction: an array (T, B, G, H), (B, T, G, H) with `batch_first`,
(T, G, H) for one sequence. It is a read-only view of the tape, and 0 past a row's length.

Args:
    layer: from 0, the one that reads x.
    direction: 0 is forward, 1 is reverse.

Returns:
    Along G an LSTM has i, f, g, o, a GRU r, z, n, and an RNN its h alone.

Raises:
    TypeError: an argument is no int.
    ValueError: there is no such layer or direction.)";

constexpr const char* cells_doc =
    R"(The cell state c of one layer and direction of an LSTM after each step: an array (T, B, H), (B, T, H) with
`batch_first`, (T, H) for one sequence. It is a read-only view of the tape, and 0 past a row's length.

Args:
    layer: from 0, the one that reads x.
    direction: 0 is forward, 1 is reverse.

Raises:
    TypeError: an argument is no int.
    ValueError: there is no such layer or direction, or the network is no LSTM.)";

}  // namespace

void define_arrays(py::module_& m) {
  using namespace py::literals;
  py::class_<Tape> tape(m, "Tape", not_from_python(), tape_doc);
  tape.def_property_readonly(
          "spec", [](const Tape& t) { return t.spec; }, "What describes the network: cell, sizes, options, dtype.")
      .def_property_readonly(
          "x", [](const Tape& t) { return t.x_as_given; }, "The input of the forward call.")
      .def_property_readonly("nbytes", &Tape::bytes, "Bytes that the tape keeps, with y, without x and the parameters.")
      .def("gates", &tape_gates, "layer"_a, "direction"_a = 0, gates_doc)
      .def("cells", &tape_cells, "layer"_a, "direction"_a = 0, cells_doc)
      .def("__repr__", &Tape::text)
      .def("__reduce_ex__", &no_pickle);

  py::class_<Prepared> prepared(m, "Prepared", not_from_python(), prepared_doc);
  prepared
      .def("__call__", &infer_prepared, "x"_a, "state"_a = py::none(), py::kw_only(), "lengths"_a = py::none(),
           prepared_call_doc)
      .def_property_readonly("spec", &Prepared::net, "What describes the network: cell, sizes, options, dtype.")
      .def_property_readonly(
          "nbytes", [](const Prepared& p) { return p.packed().bytes; }, "Bytes that the packed weights take.")
      .def("__repr__",
           [](const Prepared& p) {
             return "Prepared(" + describe(p.net()) + ", " + size_as_text(p.packed().bytes) + ")";
           })
      .def("__reduce_ex__", &no_pickle);

  for (const py::handle type : {py::handle(tape), py::handle(prepared)}) seal(type);

  m.def(
      "memory",
      [](int64_t size) {
        return own_array(py::dtype::of<uint8_t>(), {size}, allocate_for(static_cast<size_t>(size), "memory"));
      },
      "size"_a);
  m.def("prepare", &prepare, "spec"_a, "weights"_a);
  m.def(
      "check",
      [](const Network& net, const py::sequence& weights, py::handle x, py::handle state, py::handle lengths) {
        checked_weights(net, weights);
        Call(net, x, state, lengths);
      },
      "spec"_a, "weights"_a, "x"_a, "state"_a, "lengths"_a);
  m.def("infer", &infer, "spec"_a, "weights"_a, "x"_a, "state"_a, "lengths"_a);
  m.def("forward", &run_forward, "spec"_a, "weights"_a, "x"_a, "state"_a, "lengths"_a, "dropout_seed"_a);
  m.def("backward", &run_backward, "tape"_a, "dy"_a, "dstate"_a);
}

}  // namespace fastrnn::python

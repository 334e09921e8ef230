// Calls on addresses, for frameworks whose tensors own their memory: an adapter has checked its arguments and allocated
// the results, and hands over where they lie.
#include <algorithm>

#include "bindings.h"

namespace fastrnn::python {
namespace {

// Where an array lies. Python gives a number, a tensor, which has a data_ptr(), or 0 or None for what is absent.
struct Address {
  void* pointer = nullptr;
};

// A tensor whose memory is not there.
struct Unreadable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// What a method of a tensor's returns.
py::object ask(py::handle tensor, PyObject* method) {
  py::object answer = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor.ptr(), method));
  if (!answer) throw py::error_already_set();
  return answer;
}

// Where a tensor lies. One whose storage is empty, as after untyped_storage().resize_(0), tells its offset: a number so
// small for an address that there it pays to look.
void* address_of(py::handle tensor) {
  static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
  static PyObject* const storage_offset = PyUnicode_InternFromString("storage_offset");
  try {
    void* const address = PyLong_AsVoidPtr(ask(tensor, data_ptr).ptr());
    if (!address && PyErr_Occurred()) throw py::error_already_set();
    if (reinterpret_cast<uintptr_t>(address) < uintptr_t{1} << 32) {
      const bool may_be_offset = !address || ask(tensor, storage_offset).cast<int64_t>() > 0;
      if (may_be_offset && tensor.attr("numel")().cast<int64_t>() > 0 &&
          !tensor.attr("untyped_storage")().attr("data_ptr")().cast<uintptr_t>()) {
        throw Unreadable("fastrnn: a tensor has no memory, or none any more");
      }
    }
    return address;
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_RuntimeError)) throw;
    throw Unreadable(py::str(error.value()));  // of what has no memory of its own
  }
}

}  // namespace
}  // namespace fastrnn::python

template <> struct pybind11::detail::type_caster<fastrnn::python::Address> {
  PYBIND11_TYPE_CASTER(fastrnn::python::Address, const_name("int | Tensor | None"));

  bool load(handle source, bool) {
    if (source.is_none()) return true;
    value.pointer = PyLong_Check(source.ptr()) ? PyLong_AsVoidPtr(source.ptr()) : fastrnn::python::address_of(source);
    if (PyErr_Occurred()) throw error_already_set();
    return true;
  }
};

namespace fastrnn::python {
namespace {

std::vector<void*> pointers(const std::vector<Address>& addresses) {
  std::vector<void*> all;
  for (const Address address : addresses) all.push_back(address.pointer);
  return all;
}

// The rows' lengths, from the number of rows that each step of packed data has.
std::vector<int64_t> lengths_of(const int64_t* given, int64_t steps, int64_t values) {
  const std::vector<int64_t> batch_sizes(given, given + steps);  // which another thread may change
  const auto wrong = [&](const char* expected, int64_t got) {
    wrong_value("batch_sizes", expected, std::to_string(got));
  };
  if (batch_sizes.empty() || batch_sizes[0] < 0 || batch_sizes[0] > values) {
    wrong("at least one number, the first at most that of the data's rows", steps ? batch_sizes[0] : steps);
  }
  std::vector<int64_t> lengths(static_cast<size_t>(batch_sizes[0]), steps);
  int64_t sum = 0;
  for (size_t t = 0; t < batch_sizes.size(); ++t) {
    if (batch_sizes[t] < 1) wrong("numbers of 1 and more", batch_sizes[t]);
    if (t > 0 && batch_sizes[t] > batch_sizes[t - 1]) wrong("descending numbers", batch_sizes[t]);
    if (t > 0)
      std::fill(lengths.begin() + batch_sizes[t], lengths.begin() + batch_sizes[t - 1], static_cast<int64_t>(t));
    sum += batch_sizes[t];
  }
  if (sum != values) wrong("a number of rows for each step, all those of the data", sum);
  return lengths;
}

// How a call's arrays lie over time: in the order of the network's axes, or packed, (sum of lengths, n).
class Layout {
 public:
  Layout(const Network& net, const Shape& x, Address batch_sizes, int64_t steps, Address lengths) : net_(net) {
    if (batch_sizes.pointer) {
      packed_ = true;
      lengths_ = lengths_of(static_cast<const int64_t*>(batch_sizes.pointer), steps, x[0]);
      extent_ = {steps, static_cast<int64_t>(lengths_.size()), true};
    } else {
      extent_ = extent_of(net, x);
      if (lengths.pointer) copy(static_cast<const int64_t*>(lengths.pointer));
    }
  }

  // x with its sizes and strides in elements, the other inputs and y contiguous.
  void fill(Forward& call, int threads, Address x, const Shape& shape, const Shape& strides, Address h0, Address c0,
            Address y) const {
    call.threads = threads;
    call.on_openmp = true;
    call.steps = extent_.steps, call.rows = extent_.rows;
    call.packed = packed_;
    call.x =
        packed_ ? Strided{x.pointer, 0, strides[0], strides[1]} : strided(net_, extent_, x.pointer, shape, strides);
    call.lengths = lengths_.empty() ? nullptr : lengths_.data();
    call.h0 = h0.pointer, call.c0 = c0.pointer;
    call.y = contiguous(y, net_.width());
  }

  Strided contiguous(Address address, int64_t width) const {
    if (packed_) return {address.pointer, 0, width, 1};
    const Shape shape = over_time(net_, extent_, {width});
    const Shape strides = extent_.batched ? Shape{shape[1] * width, width, 1} : Shape{width, 1};
    return strided(net_, extent_, address.pointer, shape, strides);
  }

 private:
  // They may lie in memory of the program's own, where another thread can change them at any time.
  void copy(const int64_t* lengths) {
    lengths_.assign(lengths, lengths + extent_.rows);
    for (const int64_t length : lengths_) {
      if (length < 0 || length > extent_.steps) {
        throw py::value_error("lengths must be from 0 to " + std::to_string(extent_.steps) + ", got " +
                              std::to_string(length));
      }
    }
  }

  const Network& net_;
  Extent extent_;
  bool packed_ = false;
  std::vector<int64_t> lengths_;
};

std::vector<LayerWeights> weights_of(const Network& net, const std::vector<Address>& weights) {
  return by_layer<LayerWeights>(net, pointers(weights));
}
const Packed& weights_of(const Network&, const Prepared& prepared) { return prepared.packed(); }

template <class Weights>
void run_forward(const Network& net, const Weights& weights, int threads, Address x, const Shape& shape,
                 const Shape& strides, Address batch_sizes, int64_t steps, Address lengths, Address h0, Address c0,
                 Address y, Address h_n, Address c_n, Address tape, uint64_t dropout_seed) {
  const Layout layout(net, shape, batch_sizes, steps, lengths);
  Forward call{};
  layout.fill(call, threads, x, shape, strides, h0, c0, y);
  call.h_n = h_n.pointer, call.c_n = c_n.pointer;
  call.tape = static_cast<std::byte*>(tape.pointer);
  call.dropout_seed = dropout_seed;
  call_forward(net, weights_of(net, weights), call);
}

void run_backward(const Network& net, const std::vector<Address>& weights, int threads, Address x, const Shape& shape,
                  const Shape& strides, Address batch_sizes, int64_t steps, Address lengths, Address h0, Address c0,
                  Address y, Address tape, uint64_t dropout_seed, Address dy, Address dh_n, Address dc_n, Address dx,
                  Address dh0, Address dc0, const std::vector<Address>& gradients) {
  const Layout layout(net, shape, batch_sizes, steps, lengths);
  Backward call{};
  layout.fill(call, threads, x, shape, strides, h0, c0, y);
  call.tape = static_cast<std::byte*>(tape.pointer);
  call.dropout_seed = dropout_seed;
  if (dy.pointer) call.dy = layout.contiguous(dy, net.width());
  call.dh_n = dh_n.pointer, call.dc_n = dc_n.pointer;
  if (dx.pointer) call.dx = layout.contiguous(dx, net.input_size);
  call.dh0 = dh0.pointer, call.dc0 = dc0.pointer;
  const auto outputs = by_layer<LayerGradients>(net, pointers(gradients));
  call.gradients = outputs.data();
  call_backward(net, weights_of(net, weights), call);
}

}  // namespace

void define_addresses(py::module_& m) {
  using namespace py::literals;
  py::register_local_exception<Unreadable>(m, "UnreadableError", PyExc_RuntimeError);
  m.def("tape_widths", [](const Network& net) { return tape_widths(net); }, "spec"_a);
  const auto define_forward = [&](auto* function) {
    m.def("forward_at", function, "spec"_a, "weights"_a, "threads"_a, "x"_a, "sizes"_a, "strides"_a, "batch_sizes"_a,
          "steps"_a, "lengths"_a, "h0"_a, "c0"_a, "y"_a, "h_n"_a, "c_n"_a, "tape"_a, "dropout_seed"_a);
  };
  define_forward(&run_forward<std::vector<Address>>);
  define_forward(&run_forward<Prepared>);
  m.def("backward_at", &run_backward, "spec"_a, "weights"_a, "threads"_a, "x"_a, "sizes"_a, "strides"_a,
        "batch_sizes"_a, "steps"_a, "lengths"_a, "h0"_a, "c0"_a, "y"_a, "tape"_a, "dropout_seed"_a, "dy"_a, "dh_n"_a,
        "dc_n"_a, "dx"_a, "dh0"_a, "dc0"_a, "gradients"_a);
  m.def(
      "use_openmp",
      [](Address parallel, Address thread_num, Address num_threads, Address thread_limit, Address in_parallel) {
        use_openmp({reinterpret_cast<decltype(OpenMP::parallel)>(parallel.pointer),
                    reinterpret_cast<decltype(OpenMP::thread_num)>(thread_num.pointer),
                    reinterpret_cast<decltype(OpenMP::num_threads)>(num_threads.pointer),
                    reinterpret_cast<decltype(OpenMP::thread_limit)>(thread_limit.pointer),
                    reinterpret_cast<decltype(OpenMP::in_parallel)>(in_parallel.pointer)});
      },
      "parallel"_a, "thread_num"_a, "num_threads"_a, "thread_limit"_a, "in_parallel"_a);
}

}  // namespace fastrnn::python

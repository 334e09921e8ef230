// Calls on addresses, for frameworks whose tensors own their memory: an adapter has checked its arguments and allocated
// the results, and hands over where they lie. 0 stands for what is absent.
#include "bindings.h"

namespace fastrnn::python {
namespace {

using Address = uintptr_t;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

std::vector<void*> pointers(const std::vector<Address>& addresses) {
  std::vector<void*> all;
  for (const Address address : addresses) all.push_back(pointer(address));
  return all;
}

// An array over time in the order of x's axes, of another width and contiguous.
Strided contiguous(const Network& net, const Extent& e, Address address, int64_t width) {
  const Shape shape = over_time(net, e, {width});
  return strided(net, e, pointer(address), shape, e.batched ? Shape{shape[1] * width, width, 1} : Shape{width, 1});
}

// What forward and backward calls have in common: x with its sizes and strides in elements, the other inputs and y
// contiguous.
void fill(Forward& call, const Network& net, int threads, Address x, const Shape& shape, const Shape& strides,
          Address lengths, Address h0, Address c0, Address y) {
  const Extent e = extent_of(net, shape);
  call.threads = threads;
  call.on_openmp = true;
  call.steps = e.steps, call.rows = e.rows;
  call.x = strided(net, e, pointer(x), shape, strides);
  call.lengths = static_cast<const int64_t*>(pointer(lengths));
  call.h0 = pointer(h0), call.c0 = pointer(c0);
  call.y = contiguous(net, e, y, net.width());
}

void run_forward(const Network& net, const std::vector<Address>& weights, int threads, Address x, const Shape& shape,
                 const Shape& strides, Address lengths, Address h0, Address c0, Address y, Address h_n, Address c_n,
                 Address tape, uint64_t dropout_seed) {
  Forward call{};
  fill(call, net, threads, x, shape, strides, lengths, h0, c0, y);
  call.h_n = pointer(h_n), call.c_n = pointer(c_n);
  call.tape = static_cast<std::byte*>(pointer(tape));
  call.dropout_seed = dropout_seed;
  call_forward(net, by_layer<LayerWeights>(net, pointers(weights)), call);
}

void run_backward(const Network& net, const std::vector<Address>& weights, int threads, Address x, const Shape& shape,
                  const Shape& strides, Address lengths, Address h0, Address c0, Address y, Address tape,
                  uint64_t dropout_seed, Address dy, Address dh_n, Address dc_n, Address dx, Address dh0, Address dc0,
                  const std::vector<Address>& gradients) {
  Backward call{};
  fill(call, net, threads, x, shape, strides, lengths, h0, c0, y);
  const Extent e = extent_of(net, shape);
  call.tape = static_cast<std::byte*>(pointer(tape));
  call.dropout_seed = dropout_seed;
  if (dy) call.dy = contiguous(net, e, dy, net.width());
  call.dh_n = pointer(dh_n), call.dc_n = pointer(dc_n);
  if (dx) call.dx = contiguous(net, e, dx, net.input_size);
  call.dh0 = pointer(dh0), call.dc0 = pointer(dc0);
  const auto outputs = by_layer<LayerGradients>(net, pointers(gradients));
  call.gradients = outputs.data();
  call_backward(net, by_layer<LayerWeights>(net, pointers(weights)), call);
}

}  // namespace

void define_addresses(py::module_& m) {
  using namespace py::literals;
  m.def("tape_widths", [](const Network& net) { return tape_widths(net); }, "spec"_a);
  m.def("forward_at", &run_forward, "spec"_a, "weights"_a, "threads"_a, "x"_a, "sizes"_a, "strides"_a, "lengths"_a,
        "h0"_a, "c0"_a, "y"_a, "h_n"_a, "c_n"_a, "tape"_a, "dropout_seed"_a);
  m.def("backward_at", &run_backward, "spec"_a, "weights"_a, "threads"_a, "x"_a, "sizes"_a, "strides"_a, "lengths"_a,
        "h0"_a, "c0"_a, "y"_a, "tape"_a, "dropout_seed"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "dx"_a, "dh0"_a, "dc0"_a,
        "gradients"_a);
  m.def(
      "use_openmp",
      [](Address parallel, Address thread_num, Address num_threads, Address thread_limit, Address in_parallel) {
        use_openmp({reinterpret_cast<decltype(OpenMP::parallel)>(parallel),
                    reinterpret_cast<decltype(OpenMP::thread_num)>(thread_num),
                    reinterpret_cast<decltype(OpenMP::num_threads)>(num_threads),
                    reinterpret_cast<decltype(OpenMP::thread_limit)>(thread_limit),
                    reinterpret_cast<decltype(OpenMP::in_parallel)>(in_parallel)});
      },
      "parallel"_a, "thread_num"_a, "num_threads"_a, "thread_limit"_a, "in_parallel"_a);
}

}  // namespace fastrnn::python

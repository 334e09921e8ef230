// ONNX' operators on NumPy arrays, which the caller has checked: C-contiguous and of the element type, 16-bit numbers
// as uint16.
#include "bindings.h"

#include <pybind11/numpy.h>

#include "onnx_operator.h"

namespace fastrnn::python {
namespace {

struct Type {
  onnx::Element element;
  const char* numpy;  // what outputs are
};

Type type_named(const std::string& name) {
  if (name == "float32") return {onnx::Element::float32, "float32"};
  if (name == "float64") return {onnx::Element::float64, "float64"};
  if (name == "float16") return {onnx::Element::float16, "uint16"};
  if (name == "bfloat16") return {onnx::Element::bfloat16, "uint16"};
  wrong_value("element", "'float32', 'float64', 'float16' or 'bfloat16'", "'" + name + "'");
}

onnx::Tensor tensor(py::handle value) {
  if (value.is_none()) return {};
  const auto array = py::reinterpret_borrow<py::array>(value);
  return {const_cast<void*>(array.data()), {array.shape(), static_cast<size_t>(array.ndim())}};  // inputs are only read
}

py::list run_onnx(const Network& net, const std::string& element, bool reverse, const py::sequence& inputs,
                  const py::object& sequence_lens) {
  const Type type = type_named(element);
  const onnx::Attributes attributes{net, type.element, reverse, net.batch_first, 0};
  onnx::Inputs in;
  for (size_t i = 0; i < in.size(); ++i) in[i] = tensor(py::object(inputs[i]));
  const onnx::Tensor lengths = tensor(sequence_lens);
  const onnx::Network network = onnx::network(attributes, in);
  const auto shapes = onnx::output_shapes(attributes, network, in, lengths);
  onnx::Outputs out{};
  py::list results;
  for (size_t i = 0; i < (net.has_cell() ? 3u : 2u); ++i) {
    const py::array result(py::dtype(type.numpy), shapes[i]);
    out[i] = const_cast<void*>(result.data());
    results.append(result);
  }
  compute("the call's scratch memory", [&] { onnx::run(attributes, network, in, lengths, out); });
  return results;
}

}  // namespace

void define_onnx(py::module_& m) {
  using namespace py::literals;
  m.def("run_onnx", &run_onnx, "spec"_a, "element"_a, "reverse"_a, "inputs"_a, "sequence_lens"_a);
}

}  // namespace fastrnn::python

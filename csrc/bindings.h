// What the parts of the Python module have in common: descriptions of networks, messages, and how a call's
// arrays are laid out, whoever owns their memory.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings_gil.h"
#include "fastrnn.h"

namespace fastrnn::python {

namespace py = pybind11;

struct Network : Spec {
  bool batch_first;

  int64_t states() const { return num_layers * directions(); }
  int64_t width() const { return directions() * output_size(); }
  const char* dtype_name() const { return dtype == DType::float32 ? "float32" : "float64"; }
};

using Shape = std::vector<int64_t>;

// --- messages -------------------------------------------------------------------------------------------------------

std::string text(const Shape&);
std::string type_name(py::handle);
std::string describe(const Network&);  // "LSTM 8 -> 4, 1 layer, float32"
std::string size_as_text(size_t bytes);

[[noreturn]] void wrong_value(const std::string& name, const std::string& expected, const std::string& got);
[[noreturn]] void wrong_type(const std::string& name, const std::string& expected, const std::string& got);

// What could not be had, for a MemoryError that says so.
struct NoMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// --- the shape of a call --------------------------------------------------------------------------------------------

struct Extent {
  int64_t steps, rows;
  bool batched;
};

Shape over_time(const Network&, const Extent&, const Shape& rest);  // sizes in the caller's order of axes: (T, B, n),
                                                                    // (B, T, n) with batch_first, (T, n) unbatched
Shape state_shape(const Network&, const Extent&, int64_t width);
Extent extent_of(const Network&, const Shape& x);  // of an x of 2 or 3 axes

// An array over time in the caller's order of axes, its strides in elements.
Strided strided(const Network&, const Extent&, void* data, const Shape& shape, const Shape& strides);

std::vector<std::pair<std::string, Shape>> parameter_shapes(const Network&);

// The flat list of parameters by layer and direction: arrays to read from, or to write to.
template <class Layer> std::vector<Layer> by_layer(const Network& net, const std::vector<void*>& flat) {
  std::vector<Layer> layers;
  size_t next = 0;
  const auto take = [&](bool present) { return present ? flat[next++] : nullptr; };
  for (int64_t i = 0; i < net.states(); ++i) {
    Layer layer{};
    layer.w_ih = take(true);
    layer.w_hh = take(true);
    layer.b_ih = take(net.bias);
    layer.b_hh = take(net.bias);
    layer.w_hr = take(net.proj_size > 0);
    layer.w_peephole = take(net.peephole());
    layers.push_back(layer);
  }
  return layers;
}

// Options, as Python writes them: activations (name, alpha, beta) by direction, clip, coupled_input_forget, peephole.
using NamedActivation = std::tuple<std::string, double, double>;
using NamedOptions = std::tuple<std::vector<NamedActivation>, std::optional<double>, bool, bool>;

// A network from arguments that are checked: every bad one gets an error that names it.
Network make_network(const std::string& cell, int64_t input_size, int64_t hidden_size, int64_t num_layers, bool bias,
                     bool batch_first, double dropout, bool bidirectional, int64_t proj_size, const std::string& dtype,
                     const std::optional<NamedOptions>& options);

// --- calls ----------------------------------------------------------------------------------------------------------

// Calls function() without the GIL; `memory` is what it asks the system for.
template <class Function> void compute(const char* memory, Function&& function) {
  try {
    without_gil(function);
  } catch (const std::bad_alloc&) {
    throw NoMemory(memory);
  }
}

template <class Weights> void call_forward(const Network& net, const Weights& weights, const Forward& call) {
  compute("the call's scratch memory", [&] { forward(net, weights, call); });
}
inline void call_backward(const Network& net, const std::vector<LayerWeights>& weights, const Backward& call) {
  compute("the call's scratch memory", [&] { backward(net, weights, call); });
}

// Weights packed for inference.
class Prepared {
 public:
  Prepared(const Network& net, const std::vector<LayerWeights>& layers) : net_(net) {
    compute("the packed weights", [&] { packed_ = pack(net, layers); });
  }
  const Network& net() const { return net_; }
  const Packed& packed() const { return packed_; }

 private:
  Network net_;
  Packed packed_;
};

// --- the module's parts ---------------------------------------------------------------------------------------------

// Objects come from this module's functions: pybind11 would hand on memory that nothing was written to where
// C.__new__(C) made one.
py::custom_type_setup not_from_python();
// Nor may an object of another class be declared one of theirs. For a class that is complete.
void seal(py::handle type);

void define_spec(py::module_&);  // Spec
void define_arrays(py::module_&);  // calls on NumPy arrays: Prepared, Tape, infer, forward, backward
void define_addresses(py::module_&);  // calls on addresses, for frameworks with tensors of their own
void define_onnx(py::module_&);  // ONNX' operators
void define_xla(py::module_&);  // calls from programs that XLA compiled; without its headers, none

}  // namespace fastrnn::python

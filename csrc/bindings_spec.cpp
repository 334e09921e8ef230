// What describes a network, its messages, and how sizes and strides are read.
#include "bindings.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fastrnn::python {

// --- messages -------------------------------------------------------------------------------------------------------

std::string text(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

std::string type_name(py::handle value) { return py::cast<std::string>(py::type::handle_of(value).attr("__name__")); }

void wrong_value(const std::string& name, const std::string& expected, const std::string& got) {
  throw py::value_error(name + ": expected " + expected + ", got " + got);
}
void wrong_type(const std::string& name, const std::string& expected, const std::string& got) {
  throw py::type_error(name + ": expected " + expected + ", got " + got);
}

std::string describe(const Network& net) {
  const std::string cell = traits(net.cell).name;
  const size_t split = cell.find('_');
  std::string out = cell.substr(0, split);
  for (char& letter : out) letter = static_cast<char>(letter - 'a' + 'A');
  if (split != std::string::npos) {
    std::string variant = cell.substr(split + 1);
    std::replace(variant.begin(), variant.end(), '_', ' ');
    if (variant != "tanh") out += " (" + variant + ")";
  }
  out += " " + std::to_string(net.input_size) + " -> " + std::to_string(net.hidden_size);
  if (net.proj_size) out += " -> " + std::to_string(net.proj_size);
  out += ", " + std::to_string(net.num_layers) + (net.num_layers == 1 ? " layer" : " layers");
  if (net.bidirectional) out += ", bidirectional";
  if (net.batch_first) out += ", batch first";
  if (net.options) out += ", with options";
  return out + ", " + net.dtype_name();
}

std::string size_as_text(size_t bytes) {
  const char* unit = "bytes";
  for (const char* larger : {"kB", "MB", "GB", "TB"}) {
    if (bytes < 1000) break;
    bytes = (bytes + 500) / 1000;
    unit = larger;
  }
  return std::to_string(bytes) + " " + unit;
}

// --- the shape of a call --------------------------------------------------------------------------------------------

Shape over_time(const Network& net, const Extent& e, const Shape& rest) {
  Shape shape = !e.batched ? Shape{e.steps} : net.batch_first ? Shape{e.rows, e.steps} : Shape{e.steps, e.rows};
  shape.insert(shape.end(), rest.begin(), rest.end());
  return shape;
}
Shape state_shape(const Network& net, const Extent& e, int64_t width) {
  return e.batched ? Shape{net.states(), e.rows, width} : Shape{net.states(), width};
}

Extent extent_of(const Network& net, const Shape& x) {
  const bool batched = x.size() == 3;
  return {x[batched && net.batch_first ? 1 : 0], batched ? x[net.batch_first ? 0 : 1] : 1, batched};
}

Strided strided(const Network& net, const Extent& e, void* data, const Shape& shape, const Shape& strides) {
  const int64_t unit = shape.back() > 1 ? strides.back() : 1;
  if (!e.batched) return {data, strides[0], 0, unit};
  return net.batch_first ? Strided{data, strides[1], strides[0], unit} : Strided{data, strides[0], strides[1], unit};
}

std::vector<std::pair<std::string, Shape>> parameter_shapes(const Network& net) {
  std::vector<std::pair<std::string, Shape>> all;
  const int64_t G = net.gates(), H = net.hidden_size, P = net.output_size();
  for (int64_t layer = 0; layer < net.num_layers; ++layer) {
    for (int64_t direction = 0; direction < net.directions(); ++direction) {
      const std::string end = "_l" + std::to_string(layer) + (direction ? "_reverse" : "");
      all.push_back({"weight_ih" + end, {G * H, net.layer_input(layer)}});
      all.push_back({"weight_hh" + end, {G * H, P}});
      if (net.bias) all.push_back({"bias_ih" + end, {G * H}}), all.push_back({"bias_hh" + end, {G * H}});
      if (net.proj_size) all.push_back({"weight_hr" + end, {P, H}});
      if (net.peephole()) all.push_back({"weight_peephole" + end, {3 * H}});
    }
  }
  return all;
}

// --- Spec -----------------------------------------------------------------------------------------------------------

namespace {

Options make_options(const Network& net, const NamedOptions& given) {
  const auto& [activations, clip, coupled, peephole] = given;
  Options options{{}, clip.value_or(std::numeric_limits<double>::infinity()), coupled, peephole};
  const size_t count = static_cast<size_t>(traits(net.cell).functions);
  const size_t wanted = static_cast<size_t>(net.directions()) * count;
  if (activations.size() != wanted) {
    wrong_value("activations", std::to_string(wanted) + " of them", std::to_string(activations.size()));
  }
  const auto& names = function_names();
  for (size_t i = 0; i < wanted; ++i) {
    const auto& [name, alpha, beta] = activations[i];
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) wrong_value("activations", "names of functions", "'" + name + "'");
    options.functions[i / count][i % count] = {static_cast<Function>(found - names.begin()), alpha, beta};
  }
  if (!(options.clip > 0)) wrong_value("clip", "a number greater than 0", std::to_string(options.clip));
  if ((coupled || peephole) && net.cell != Cell::lstm) {
    wrong_value(peephole ? "peephole" : "coupled_input_forget", "False, since only an LSTM has it", "True");
  }
  return options;
}

std::optional<NamedOptions> options_as_tuple(const Network& net) {
  if (!net.options) return std::nullopt;
  const Options& o = *net.options;
  std::vector<NamedActivation> activations;
  for (int64_t direction = 0; direction < net.directions(); ++direction) {
    for (int f = 0; f < traits(net.cell).functions; ++f) {
      const Activation& a = o.functions[direction][f];
      activations.push_back({function_names()[static_cast<size_t>(a.function)], a.alpha, a.beta});
    }
  }
  const auto clip = std::isinf(o.clip) ? std::nullopt : std::optional(o.clip);
  return NamedOptions{std::move(activations), clip, o.coupled, o.peephole};
}

}  // namespace

Network make_network(const std::string& cell, int64_t input_size, int64_t hidden_size, int64_t num_layers, bool bias,
                     bool batch_first, double dropout, bool bidirectional, int64_t proj_size, const std::string& dtype,
                     const std::optional<NamedOptions>& options) {
  Network net{};
  const auto& cells = all_cells();
  const auto found = std::find_if(cells.begin(), cells.end(), [&](const CellTraits& c) { return cell == c.name; });
  if (found == cells.end()) wrong_value("cell", "a cell's name", "'" + cell + "'");
  net.cell = found->cell;
  const auto positive = [](const char* name, int64_t value) {
    constexpr int64_t most = std::numeric_limits<int32_t>::max();  // twice or four times as many fit into an int64_t
    if (value < 1 || value > most) wrong_value(name, "from 1 to " + std::to_string(most), std::to_string(value));
    return value;
  };
  net.input_size = positive("input_size", input_size);
  net.hidden_size = positive("hidden_size", hidden_size);
  net.num_layers = positive("num_layers", num_layers);
  if (!(dropout >= 0 && dropout <= 1)) wrong_value("dropout", "a probability in [0, 1]", std::to_string(dropout));
  if (proj_size < 0 || proj_size >= hidden_size) {
    wrong_value("proj_size", "0 or less than hidden_size", std::to_string(proj_size));
  }
  if (proj_size && net.cell != Cell::lstm)
    wrong_value("proj_size", "0, since only an LSTM has a projection", std::to_string(proj_size));
  if (dtype != "float32" && dtype != "float64") wrong_value("dtype", "'float32' or 'float64'", "'" + dtype + "'");
  net.dtype = dtype == "float32" ? DType::float32 : DType::float64;
  net.proj_size = proj_size;
  net.dropout = dropout;
  net.bias = bias;
  net.bidirectional = bidirectional;
  net.batch_first = batch_first;
  if (options) net.options = make_options(net, *options);
  return net;
}

namespace {

py::list shapes_as_tuples(const Network& net) {
  py::list out;
  for (const auto& [name, shape] : parameter_shapes(net)) out.append(py::make_tuple(name, py::tuple(py::cast(shape))));
  return out;
}

}  // namespace

py::custom_type_setup not_from_python() {
  return py::custom_type_setup([](PyHeapTypeObject* type) {
    type->ht_type.tp_new = [](PyTypeObject* self, PyObject*, PyObject*) -> PyObject* {
      PyErr_Format(PyExc_TypeError, "cannot create '%s' instances", self->tp_name);
      return nullptr;
    };
  });
}

void seal(py::handle type) {
  auto* const sealed = reinterpret_cast<PyTypeObject*>(type.ptr());
  sealed->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
  PyType_Modified(sealed);
}

void define_spec(py::module_& m) {
  using namespace py::literals;
  py::class_<Network> spec(m, "Spec", not_from_python());
  spec.def_property_readonly("cell", [](const Network& n) { return traits(n.cell).name; })
      .def_property_readonly("input_size", [](const Network& n) { return n.input_size; })
      .def_property_readonly("hidden_size", [](const Network& n) { return n.hidden_size; })
      .def_property_readonly("num_layers", [](const Network& n) { return n.num_layers; })
      .def_property_readonly("proj_size", [](const Network& n) { return n.proj_size; })
      .def_property_readonly("bias", [](const Network& n) { return n.bias; })
      .def_property_readonly("batch_first", [](const Network& n) { return n.batch_first; })
      .def_property_readonly("bidirectional", [](const Network& n) { return n.bidirectional; })
      .def_property_readonly("dropout", [](const Network& n) { return n.dropout; })
      .def_property_readonly("dtype", &Network::dtype_name)
      .def_property_readonly("options", &options_as_tuple)
      .def("parameter_shapes", &shapes_as_tuples)
      .def("__repr__", [](const Network& n) { return "Spec(" + describe(n) + ")"; })
      .def("__reduce_ex__", [](const py::object& self, int) {
        const Network& n = py::cast<const Network&>(self);
        return py::make_tuple(
            py::module_::import("fastrnn._core").attr("make_spec"),
            py::make_tuple(traits(n.cell).name, n.input_size, n.hidden_size, n.num_layers, n.bias, n.batch_first,
                           n.dropout, n.bidirectional, n.proj_size, n.dtype_name(), options_as_tuple(n)));
      });
  seal(spec);
  m.def("make_spec", &make_network, "cell"_a, "input_size"_a, "hidden_size"_a, "num_layers"_a = 1, "bias"_a = true,
        "batch_first"_a = false, "dropout"_a = 0.0, "bidirectional"_a = false, "proj_size"_a = 0, "dtype"_a = "float32",
        "options"_a = py::none());
}

}  // namespace fastrnn::python

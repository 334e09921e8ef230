// The Python module of the CUDA side, of its own because few builds have it. Calls are on addresses of the device's
// memory, and 0 stands for what is absent: who calls has checked the arguments and owns all memory.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>

#include "bindings_dlpack.h"
#include "device.h"
#include "memory.h"

namespace py = pybind11;
using namespace fastrnn;

namespace {

using Address = uintptr_t;
using Shape = std::vector<int64_t>;

// In the order of the enumerations.
#define CELL(name, with_options) #name,
const char* const cells[] = {FASTRNN_CELLS(CELL)};
#undef CELL
const char* const dtypes[] = {"float32", "float64", "float16", "bfloat16"};
const char* const ways[] = {"automatic", "step_by_step", "one_sm", "cluster", "grid"};

template <class Enum, size_t n>
Enum named(const char* const (&names)[n], const char* argument, const std::string& wanted) {
  std::string all;
  for (size_t i = 0; i < n; ++i) {
    if (wanted == names[i]) return static_cast<Enum>(i);
    all += std::string(i ? ", " : "") + names[i];
  }
  throw py::value_error(std::string(argument) + ": expected one of " + all + ", got '" + wanted + "'");
}

struct Network : Spec {
  bool batch_first;

  int64_t states() const { return num_layers * directions(); }
  int64_t width() const { return directions() * output_size(); }
};

Network make_network(const std::string& cell, int64_t input_size, int64_t hidden_size, int64_t num_layers, bool bias,
                     bool batch_first, double dropout, bool bidirectional, int64_t proj_size,
                     const std::string& dtype) {
  Network net{};
  net.cell = named<Cell>(cells, "cell", cell), net.dtype = named<DType>(dtypes, "dtype", dtype);
  net.input_size = input_size, net.hidden_size = hidden_size, net.num_layers = num_layers, net.proj_size = proj_size;
  net.bias = bias, net.bidirectional = bidirectional, net.dropout = dropout, net.batch_first = batch_first;
  return net;
}

std::atomic<cuda::Way> chosen_way{cuda::Way::automatic};
std::atomic<bool> tf32{false};

// ------------------------------------------------------------------------------------------------------------- calls

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// Of weights, or of their gradients.
template <class Layer> std::vector<Layer> by_layer(const Network& net, const std::vector<Address>& flat) {
  std::vector<Layer> layers;
  size_t next = 0;
  const auto take = [&](bool present) { return present ? pointer(flat.at(next++)) : nullptr; };
  for (int64_t i = 0; i < net.states(); ++i) {
    Layer layer{};
    layer.w_ih = take(true), layer.w_hh = take(true);
    layer.b_ih = take(net.bias), layer.b_hh = take(net.bias);
    layer.w_hr = take(net.proj_size > 0);
    layers.push_back(layer);
  }
  return layers;
}

// (T, B, n), or (B, T, n) with batch_first; strides in elements.
Strided strided(const Network& net, Address data, const Shape& strides) {
  return net.batch_first ? Strided{pointer(data), strides[1], strides[0], strides[2]}
                         : Strided{pointer(data), strides[0], strides[1], strides[2]};
}
Strided contiguous(const Network& net, Address data, const Shape& sizes, int64_t width) {
  return strided(net, data, {sizes[1] * width, width, 1});
}

struct Arguments {
  Address x;
  Shape sizes, strides;
  Address lengths, h0, c0, y, tape;
  uint64_t seed;
};

void fill(Forward& call, const Network& net, const Arguments& a) {
  if (a.sizes.size() != 3 || a.strides.size() != 3) throw py::value_error("x: expected 3 dimensions");
  call.steps = a.sizes[net.batch_first ? 1 : 0], call.rows = a.sizes[net.batch_first ? 0 : 1];
  call.x = strided(net, a.x, a.strides);
  call.lengths = static_cast<const int64_t*>(pointer(a.lengths));
  call.h0 = pointer(a.h0), call.c0 = pointer(a.c0);
  call.y = contiguous(net, a.y, a.sizes, net.width());
  call.tape = static_cast<std::byte*>(pointer(a.tape));
  call.dropout_seed = a.seed;
}

// A device's context, by the number that the caller has for the device, which is current. One call uses it at a time.
class Contexts {
 public:
  template <class Call> void use(int device, Call call) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<cuda::Context>& context = contexts_[device];
    if (!context) context = std::make_unique<cuda::Context>();
    call(*context);
  }

 private:
  std::mutex mutex_;
  std::map<int, std::unique_ptr<cuda::Context>> contexts_;
};

// Lives as long as the process: when it ends, CUDA may be gone before.
Contexts& contexts() {
  static auto* all = new Contexts;
  return *all;
}

cuda::Options settings() { return {tf32, chosen_way}; }

// `allocate` gives so many bytes of the device's memory, which it keeps until the call's work on the stream is done.
template <class Call, class Run>
void run(const Network& net, const Call& call, const py::function& allocate, int device, Run run_on) {
  const auto bytes = cuda::workspace(net, call);
  auto* memory = static_cast<std::byte*>(pointer(allocate(bytes).template cast<Address>()));
  python::without_gil(
      [&] { contexts().use(device, [&](cuda::Context& context) { run_on(context, memory, settings()); }); });
}

void run_forward(const Network& net, const std::vector<Address>& weights, const Arguments& a, Address h_n, Address c_n,
                 const py::function& allocate, int device, Address stream) {
  Forward call{};
  fill(call, net, a);
  call.h_n = pointer(h_n), call.c_n = pointer(c_n);
  const auto layers = by_layer<LayerWeights>(net, weights);
  run(net, call, allocate, device, [&](cuda::Context& context, std::byte* memory, const cuda::Options& options) {
    cuda::forward(context, net, layers, call, memory, reinterpret_cast<cuda::Stream>(stream), options);
  });
}

void run_backward(const Network& net, const std::vector<Address>& weights, const Arguments& a, Address dy, Address dh_n,
                  Address dc_n, Address dx, Address dh0, Address dc0, const std::vector<Address>& gradients,
                  const py::function& allocate, int device, Address stream) {
  Backward call{};
  fill(call, net, a);
  if (dy) call.dy = contiguous(net, dy, a.sizes, net.width());
  call.dh_n = pointer(dh_n), call.dc_n = pointer(dc_n);
  if (dx) call.dx = contiguous(net, dx, a.sizes, net.input_size);
  call.dh0 = pointer(dh0), call.dc0 = pointer(dc0);
  const auto outputs = by_layer<LayerGradients>(net, gradients);
  call.gradients = outputs.data();
  const auto layers = by_layer<LayerWeights>(net, weights);
  run(net, call, allocate, device, [&](cuda::Context& context, std::byte* memory, const cuda::Options& options) {
    cuda::backward(context, net, layers, call, memory, reinterpret_cast<cuda::Stream>(stream), options);
  });
}

// For calls that Python has no part in.
class Calls : public Device {
 public:
  std::shared_ptr<void> on_device_of(const void* memory) const override {
    return std::make_shared<cuda::OnDeviceOf>(memory);
  }
  size_t tape_bytes(const Spec& spec, int64_t steps, int64_t rows) const override {
    return cuda::tape_layout(spec, steps, rows).bytes;
  }
  size_t workspace(const Spec& spec, const Forward& call) const override { return cuda::workspace(spec, call); }
  size_t workspace(const Spec& spec, const Backward& call) const override { return cuda::workspace(spec, call); }
  void read_lengths(const void* from, bool wide, int64_t rows, int64_t steps, int64_t* to,
                    void* stream) const override {
    cuda::read_lengths(from, wide, rows, steps, to, static_cast<cuda::Stream>(stream));
  }
  void forward(const Spec& spec, const Weights& weights, const Forward& call, const uint64_t* dropout_seed,
               std::byte* memory, void* stream) const override {
    use(dropout_seed, [&](cuda::Context& context, const cuda::Options& options) {
      cuda::forward(context, spec, weights, call, memory, static_cast<cuda::Stream>(stream), options);
    });
  }
  void backward(const Spec& spec, const Weights& weights, const Backward& call, const uint64_t* dropout_seed,
                std::byte* memory, void* stream) const override {
    use(dropout_seed, [&](cuda::Context& context, const cuda::Options& options) {
      cuda::backward(context, spec, weights, call, memory, static_cast<cuda::Stream>(stream), options);
    });
  }

 private:
  template <class Call> static void use(const uint64_t* dropout_seed, Call call) {
    cuda::Options options = settings();
    options.dropout_seed = dropout_seed;
    contexts().use(cuda::device_number(), [&](cuda::Context& context) { call(context, options); });
  }
};

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  using namespace py::literals;
  if (const char* way = std::getenv("FASTRNN_CUDA_WAY")) chosen_way = named<cuda::Way>(ways, "FASTRNN_CUDA_WAY", way);

  py::class_<Network>(m, "Network", py::module_local())
      .def(py::init(&make_network), "cell"_a, "input_size"_a, "hidden_size"_a, "num_layers"_a, "bias"_a,
           "batch_first"_a, "dropout"_a, "bidirectional"_a, "proj_size"_a, "dtype"_a);
  py::class_<Arguments>(m, "Arguments", py::module_local())
      .def(py::init<Address, Shape, Shape, Address, Address, Address, Address, Address, uint64_t>(), "x"_a, "sizes"_a,
           "strides"_a, "lengths"_a, "h0"_a, "c0"_a, "y"_a, "tape"_a, "seed"_a);
  m.def("tape_widths", [](const Network& net) { return cuda::tape_parts(net); }, "network"_a);
  m.def("forward_at", &run_forward, "network"_a, "weights"_a, "arguments"_a, "h_n"_a, "c_n"_a, "allocate"_a, "device"_a,
        "stream"_a);
  m.def("backward_at", &run_backward, "network"_a, "weights"_a, "arguments"_a, "dy"_a, "dh_n"_a, "dc_n"_a, "dx"_a,
        "dh0"_a, "dc0"_a, "gradients"_a, "allocate"_a, "device"_a, "stream"_a);
  m.def("set_way", [](const std::string& way) { chosen_way = named<cuda::Way>(ways, "way", way); }, "way"_a);
  m.def("set_tf32", [](bool on) { tf32 = on; }, "on"_a);
  m.def("tf32", [] { return tf32.load(); });
  m.def(
      "explain_plan",
      [](const Network& net, int64_t steps, int64_t rows, bool backward) {
        return cuda::explain_plan(net, steps, rows, backward, {tf32});
      },
      "network"_a, "steps"_a, "rows"_a, "backward"_a);
  py::class_<cuda::DeviceMemory>(m, "Memory", py::module_local())
      .def(py::init<size_t>(), "bytes"_a)
      .def_property_readonly("address",
                             [](const cuda::DeviceMemory& memory) { return reinterpret_cast<Address>(memory.data()); })
      .def(
          "upload",
          [](const cuda::DeviceMemory& memory, const std::string_view from) {
            if (from.size() != memory.bytes()) throw py::value_error("from: not as large as the memory");
            python::without_gil([&] { memory.upload(from.data()); });
          },
          "data"_a)
      .def("download", [](const cuda::DeviceMemory& memory) {
        std::string to(memory.bytes(), '\0');
        python::without_gil([&] { memory.download(to.data()); });
        return py::bytes(to);
      });
  py::class_<dlpack::Borrowed>(m, "Borrowed", py::module_local())
      .def(py::init<py::object>(), "capsule"_a)
      .def_property_readonly("address", &dlpack::Borrowed::address)
      .def_property_readonly("shape", &dlpack::Borrowed::shape)
      .def_property_readonly("strides", &dlpack::Borrowed::strides)
      .def_property_readonly("device", &dlpack::Borrowed::device)
      .def_property_readonly("type", &dlpack::Borrowed::type);
  m.def(
      "lend",
      [](py::object owner, Address address, Shape shape, uint8_t code, uint8_t bits, int device, bool versioned) {
        const auto lent = versioned ? &dlpack::lent<dlpack::ManagedVersioned> : &dlpack::lent<dlpack::Managed>;
        return lent(std::move(owner), address, std::move(shape), {code, bits, 1}, {dlpack::cuda_memory, device});
      },
      "owner"_a, "address"_a, "shape"_a, "code"_a, "bits"_a, "device"_a, "versioned"_a);
  m.def(
      "order_streams",
      [](Address first, Address then) {
        cuda::order_streams(reinterpret_cast<cuda::Stream>(first), reinterpret_cast<cuda::Stream>(then));
      },
      "first"_a, "then"_a);
  m.def("current_device", &cuda::device_number);
  m.def(
      "device_of",
      [](Address address) {
        const cuda::OnDeviceOf there(pointer(address));
        return cuda::device_number();
      },
      "address"_a);
  m.def("device", [] {
    static const Calls calls;
    return py::capsule(static_cast<const Device*>(&calls), Device::name);
  });
  m.def("describe_device", &cuda::describe_device);
}

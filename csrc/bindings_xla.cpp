// Calls from programs that XLA has compiled, for JAX: handlers of XLA's foreign function interface, on the CPU and, for
// builds with a CUDA side, on a GPU.
//
// A network comes as the attributes that make_network takes; two more, `inputs` and `outputs`, name the arrays on
// either side, in their order. Which there are says what is wanted: an output `tape` makes a forward call one for
// training. XLA calls the handlers on threads of its own, several at once and without Python's lock, and takes errors
// as values.
#include "bindings.h"
#include "device.h"

#include <sys/mman.h>
#include <xla/ffi/api/ffi.h>

#include <algorithm>
#include <atomic>
#include <locale>
#include <map>
#include <sstream>
#include <stdexcept>

namespace fastrnn::python {
namespace {

namespace ffi = xla::ffi;

constexpr size_t line = 64;  // what a tape's address is a multiple of

// --- attributes -----------------------------------------------------------------------------------------------------

class Attributes {
 public:
  explicit Attributes(const ffi::Dictionary& all) : all_(all) {}

  template <class T> T get(const char* name) {
    const ffi::ErrorOr<T> value = all_.get<T>(name);
    if (value.has_error()) throw std::invalid_argument(std::string(name) + ": " + value.error().message());
    ++read_;
    return *value;
  }
  std::string text(const char* name) { return std::string(get<std::string_view>(name)); }

  // An attribute that nobody has asked for is an option of another version, which must not be overlooked.
  void expect_no_more() const {
    if (read_ != all_.size()) {
      wrong_value("attributes", std::to_string(read_) + " of them", std::to_string(all_.size()));
    }
  }

 private:
  const ffi::Dictionary& all_;
  size_t read_ = 0;
};

// "tanh 0.0 0.0 affine 2.0 1.0"
std::vector<NamedActivation> activations_of(const std::string& text) {
  std::istringstream in(text);
  in.imbue(std::locale::classic());
  std::vector<NamedActivation> all;
  std::string name;
  double alpha = 0, beta = 0;
  while (in >> name) {
    if (!(in >> alpha >> beta)) wrong_value("activations", "a name and two numbers each", "'" + text + "'");
    all.push_back({name, alpha, beta});
  }
  return all;
}

std::optional<NamedOptions> options_of(Attributes& a) {
  auto activations = activations_of(a.text("activations"));
  const auto clip = a.get<double>("clip");
  const bool coupled = a.get<bool>("coupled_input_forget"), peephole = a.get<bool>("peephole");
  if (activations.empty() && clip == 0 && !coupled && !peephole) return std::nullopt;
  return NamedOptions{std::move(activations), clip != 0 ? std::optional(clip) : std::nullopt, coupled, peephole};
}

Network network_of(Attributes& a, bool on_device) {
  const std::string dtype = a.text("dtype");
  const bool half = on_device && (dtype == "float16" || dtype == "bfloat16");
  Network net = make_network(a.text("cell"), a.get<int64_t>("input_size"), a.get<int64_t>("hidden_size"),
                             a.get<int64_t>("num_layers"), a.get<bool>("bias"), a.get<bool>("batch_first"),
                             a.get<double>("dropout"), a.get<bool>("bidirectional"), a.get<int64_t>("proj_size"),
                             half ? "float32" : dtype, options_of(a));
  if (half) net.dtype = dtype == "float16" ? DType::float16 : DType::bfloat16;
  if (on_device && net.options) {
    wrong_value("peephole, coupled_input_forget, clip and activations", "none of them, as CUDA has none", "some");
  }
  return net;
}

// --- arrays ---------------------------------------------------------------------------------------------------------

ffi::DataType type_of(DType type) {
  switch (type) {
    case DType::float64:
      return ffi::F64;
    case DType::float16:
      return ffi::F16;
    case DType::bfloat16:
      return ffi::BF16;
    default:
      return ffi::F32;
  }
}

const char* name_of(ffi::DataType type) {
  switch (type) {
    case ffi::F16:
      return "float16";
    case ffi::BF16:
      return "bfloat16";
    case ffi::F32:
      return "float32";
    case ffi::F64:
      return "float64";
    case ffi::S32:
      return "int32";
    case ffi::S64:
      return "int64";
    case ffi::U8:
      return "uint8";
    case ffi::U32:
      return "uint32";
    default:
      return "another type";
  }
}

ffi::AnyBuffer buffer(const ffi::AnyBuffer& argument) { return argument; }
ffi::AnyBuffer buffer(ffi::Result<ffi::AnyBuffer> result) { return *result; }

// The arrays on one side of a call, by their names.
class Arrays {
 public:
  template <class Buffers>
  Arrays(const Network& net, const char* side, const std::string& names, const Buffers& given)
      : dtype_(type_of(net.dtype)) {
    size_t count = 0;
    for (size_t begin = 0; begin < names.size(); ++count) {
      const size_t end = std::min(names.find(' ', begin), names.size());
      if (count < given.size()) {
        const auto found = given.template get<ffi::AnyBuffer>(count);
        if (found.has_error()) throw std::invalid_argument(std::string(side) + ": " + found.error().message());
        all_.emplace(names.substr(begin, end - begin), buffer(*found));
      }
      begin = end + 1;
    }
    if (count != given.size() || all_.size() != count) {
      wrong_value(side, std::to_string(given.size()) + " names of arrays", "'" + names + "'");
    }
  }

  const std::map<std::string, ffi::AnyBuffer>& all() const { return all_; }
  bool has(const std::string& name) const { return all_.count(name) > 0; }

  Shape shape(const std::string& name) const {
    const auto sizes = find(name).dimensions();
    return Shape(sizes.begin(), sizes.end());
  }
  ffi::DataType type(const std::string& name) const { return find(name).element_type(); }

  // Where an array lies that has to be there; one without elements lies anywhere.
  void* get(const std::string& name, ffi::DataType wanted, const Shape& wanted_shape) const {
    if (type(name) != wanted || shape(name) != wanted_shape) {
      wrong_value(name, name_of(wanted) + text(wanted_shape), name_of(type(name)) + text(shape(name)));
    }
    void* const data = find(name).untyped_data();
    alignas(line) static std::byte nothing[line];
    return data ? data : nothing;
  }
  void* get(const std::string& name, const Shape& wanted_shape) const { return get(name, dtype_, wanted_shape); }

  void* get_if_there(const std::string& name, const Shape& wanted_shape) const {
    return has(name) ? get(name, wanted_shape) : nullptr;
  }

  std::vector<void*> parameters(const Network& net, const std::string& prefix) const {
    if (net.num_layers > static_cast<int64_t>(all_.size())) {  // before their names are listed
      wrong_value("num_layers", "arrays for each", std::to_string(net.num_layers));
    }
    std::vector<void*> flat;
    for (const auto& [name, wanted_shape] : parameter_shapes(net)) flat.push_back(get(prefix + name, wanted_shape));
    return flat;
  }

 private:
  const ffi::AnyBuffer& find(const std::string& name) const {
    const auto found = all_.find(name);
    if (found == all_.end()) wrong_value(name, "an array", "none");
    return found->second;
  }

  ffi::DataType dtype_;
  std::map<std::string, ffi::AnyBuffer> all_;
};

// --- where calls run ------------------------------------------------------------------------------------------------

// On the threads of the core.
class OnHost {
 public:
  static constexpr bool on_device = false;

  // XLA gives back the memory of large results and tapes after each run, and gets new pages for the next: fewer, larger
  // ones are ready sooner.
  void begin(const LayerWeights&, [[maybe_unused]] const Arrays& out) const {
#if defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = uintptr_t{2} << 20;
    for (const auto& [name, array] : out.all()) {
      const auto begin = reinterpret_cast<uintptr_t>(array.untyped_data());
      const uintptr_t first = (begin + page - 1) / page * page, last = (begin + array.size_bytes()) / page * page;
      if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
    }
#endif
  }

  size_t tape_bytes(const Network& net, const Extent& e) const { return tape_layout(net, e.steps, e.rows).bytes; }

  // In the core's type: JAX's integers have 32 bits, or 64 where it is told so.
  const int64_t* lengths(const void* given, bool wide, const Extent& e) {
    if (wide) {
      check(static_cast<const int64_t*>(given), e);
    } else {
      check(static_cast<const int32_t*>(given), e);
    }
    return lengths_.data();
  }

  void run(const Network& net, const std::vector<LayerWeights>& weights, Forward& f, const uint64_t* seed) const {
    if (seed) f.dropout_seed = *seed;
    forward(net, weights, f);
  }
  void run(const Network& net, const std::vector<LayerWeights>& weights, Backward& b, const uint64_t* seed) const {
    if (seed) b.dropout_seed = *seed;
    backward(net, weights, b);
  }

 private:
  template <class Int> void check(const Int* given, const Extent& e) {
    lengths_.assign(given, given + e.rows);
    for (size_t i = 0; i < lengths_.size(); ++i) {
      if (lengths_[i] < 0 || lengths_[i] > e.steps) {
        wrong_value("lengths", "values in 0 ... " + std::to_string(e.steps),
                    std::to_string(lengths_[i]) + " at index " + std::to_string(i));
      }
    }
  }

  std::vector<int64_t> lengths_;
};

// The CUDA side's, where a build has one.
std::atomic<const Device*> device{nullptr};

class OnDevice {
 public:
  static constexpr bool on_device = true;
  OnDevice(void* stream, ffi::ScratchAllocator& memory) : stream_(stream), memory_(memory) {}

  // XLA need not have made the stream's device the current one.
  void begin(const LayerWeights& weights, const Arrays&) { current_ = side().on_device_of(weights.w_ih); }
  size_t tape_bytes(const Network& net, const Extent& e) const { return side().tape_bytes(net, e.steps, e.rows); }
  const int64_t* lengths(const void* given, bool wide, const Extent& e) {
    auto* const to = static_cast<int64_t*>(allocate(static_cast<size_t>(e.rows) * sizeof(int64_t)));
    side().read_lengths(given, wide, e.rows, e.steps, to, stream_);
    return to;
  }
  void run(const Network& net, const std::vector<LayerWeights>& weights, const Forward& f, const uint64_t* seed) {
    side().forward(net, weights, f, seed, static_cast<std::byte*>(allocate(side().workspace(net, f))), stream_);
  }
  void run(const Network& net, const std::vector<LayerWeights>& weights, const Backward& b, const uint64_t* seed) {
    side().backward(net, weights, b, seed, static_cast<std::byte*>(allocate(side().workspace(net, b))), stream_);
  }

 private:
  static const Device& side() { return *device.load(); }

  void* allocate(size_t bytes) {
    const auto found = memory_.Allocate(std::max<size_t>(bytes, 1), Device::alignment);
    if (!found) throw std::bad_alloc();
    return *found;
  }

  std::shared_ptr<void> current_;
  void* stream_;
  // What it gave goes to others when the call ends, after the call's work on the stream.
  ffi::ScratchAllocator& memory_;
};

// --- calls ----------------------------------------------------------------------------------------------------------

// What forward and backward calls have in common: the network, its arrays, and the inputs of forward.
template <class Place> struct Call {
  Place place;
  Attributes attributes;
  Network net;
  Arrays in, out;
  Extent extent;
  const int64_t* lengths = nullptr;
  const uint64_t* seed = nullptr;
  std::vector<LayerWeights> weights;

  Call(Place where, const ffi::RemainingArgs& args, const ffi::RemainingRets& rets, const ffi::Dictionary& given)
      : place(std::move(where)), attributes(given), net(network_of(attributes, Place::on_device)),
        in(net, "inputs", attributes.text("inputs"), args), out(net, "outputs", attributes.text("outputs"), rets),
        extent(checked_extent()), weights(by_layer<LayerWeights>(net, in.parameters(net, ""))) {
    attributes.expect_no_more();
    place.begin(weights.front(), out);
    if (in.has("lengths")) {
      const bool wide = in.type("lengths") == ffi::S64;
      lengths = place.lengths(in.get("lengths", wide ? ffi::S64 : ffi::S32, {extent.rows}), wide, extent);
    }
    if (in.has("seed")) seed = static_cast<const uint64_t*>(in.get("seed", ffi::U32, {2}));  // the low half first
  }

  Shape y_shape() const { return over_time(net, extent, {net.width()}); }
  Shape h_shape() const { return state_shape(net, extent, net.output_size()); }
  Shape c_shape() const { return state_shape(net, extent, net.hidden_size); }

  // An array over time, contiguous.
  Strided over_steps(void* data, int64_t width) const {
    const int64_t T = extent.steps, B = extent.rows;
    return net.batch_first && extent.batched ? Strided{data, width, T * width, 1} : Strided{data, B * width, width, 1};
  }

  // A program knows no place when its arrays get their shapes: a tape is as large as the largest of all places.
  std::byte* tape(const Arrays& side) const {
    const auto bytes = static_cast<int64_t>(place.tape_bytes(net, extent));
    const Shape found = side.shape("tape");
    void* const data = side.get("tape", ffi::U8, {found.size() == 1 ? std::max(bytes, found[0]) : bytes});
    // XLA aligns all its buffers so, and JAX copies what it is lent where that lies elsewhere.
    if (reinterpret_cast<uintptr_t>(data) % line) wrong_value("tape", "an address that is a multiple of 64", "another");
    return static_cast<std::byte*>(data);
  }

  void fill(Forward& call, const Arrays& side_of_y) const {
    call.steps = extent.steps, call.rows = extent.rows;
    call.lengths = lengths;
    call.x = over_steps(in.get("x", over_time(net, extent, {net.input_size})), net.input_size);
    call.h0 = in.get_if_there("h0", h_shape());
    if (net.has_cell()) call.c0 = in.get_if_there("c0", c_shape());
    call.y = over_steps(side_of_y.get("y", y_shape()), net.width());
  }

 private:
  Extent checked_extent() const {
    const Shape x = in.shape("x");
    if (x.size() != 2 && x.size() != 3) wrong_value("x", "2 or 3 axes", text(x));
    return extent_of(net, x);
  }
};

template <class Place> void run_forward(Call<Place>& call) {
  Forward f{};
  call.fill(f, call.out);
  f.h_n = call.out.get("h_n", call.h_shape());
  if (call.net.has_cell()) f.c_n = call.out.get("c_n", call.c_shape());
  if (call.out.has("tape")) f.tape = call.tape(call.out);
  call.place.run(call.net, call.weights, f, call.seed);
}

template <class Place> void run_backward(Call<Place>& call) {
  Backward b{};
  call.fill(b, call.in);
  b.tape = call.tape(call.in);
  if (call.in.has("dy")) b.dy = call.over_steps(call.in.get("dy", call.y_shape()), call.net.width());
  b.dh_n = call.in.get_if_there("dh_n", call.h_shape());
  b.dh0 = call.out.get("dh0", call.h_shape());
  if (call.net.has_cell()) {
    b.dc_n = call.in.get_if_there("dc_n", call.c_shape());
    b.dc0 = call.out.get("dc0", call.c_shape());
  }
  if (call.out.has("dx")) {
    void* const dx = call.out.get("dx", over_time(call.net, call.extent, {call.net.input_size}));
    b.dx = call.over_steps(dx, call.net.input_size);
  }
  const auto gradients = by_layer<LayerGradients>(call.net, call.out.parameters(call.net, "d"));
  b.gradients = gradients.data();
  call.place.run(call.net, call.weights, b, call.seed);
}

template <class Run> ffi::Error guarded(Run run) {
  try {
    run();
    return ffi::Error::Success();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "fastrnn: not enough memory for the call");
  } catch (const std::exception& error) {
    return ffi::Error::InvalidArgument(std::string("fastrnn: ") + error.what());
  }
}

template <void (*run)(Call<OnHost>&)> XLA_FFI_Error* handle(XLA_FFI_CallFrame* frame) {
  const auto call = [](ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attributes) {
    return guarded([&] {
      Call<OnHost> made({}, args, rets, attributes);
      run(made);
    });
  };
  static const auto handler = ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs().To(call);
  return handler->Call(frame);
}

template <void (*run)(Call<OnDevice>&)> XLA_FFI_Error* handle_on_device(XLA_FFI_CallFrame* frame) {
  const auto call = [](void* stream, ffi::ScratchAllocator memory, ffi::RemainingArgs args, ffi::RemainingRets rets,
                       ffi::Dictionary attributes) {
    return guarded([&] {
      Call<OnDevice> made({stream, memory}, args, rets, attributes);
      run(made);
    });
  };
  static const auto handler = ffi::Ffi::Bind()
                                  .Ctx<ffi::PlatformStream<void*>>()
                                  .Ctx<ffi::ScratchAllocator>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attrs()
                                  .To(call);
  return handler->Call(frame);
}

py::capsule capsule(XLA_FFI_Handler* handler) { return py::capsule(reinterpret_cast<void*>(handler)); }

}  // namespace

void define_xla(py::module_& m) {
  m.def("xla_handlers", [] {
    py::dict handlers;
    handlers["fastrnn_forward"] = capsule(&handle<run_forward<OnHost>>);
    handlers["fastrnn_backward"] = capsule(&handle<run_backward<OnHost>>);
    return handlers;
  });
  m.def(
      "xla_device_handlers",
      [](const py::capsule& given) {
        const std::string_view found = given.name() ? given.name() : "a capsule without a name";
        if (found != Device::name) wrong_value("device", Device::name, std::string(found));
        device = given.get_pointer<const Device>();
        py::dict handlers;
        handlers["fastrnn_forward"] = capsule(&handle_on_device<run_forward<OnDevice>>);
        handlers["fastrnn_backward"] = capsule(&handle_on_device<run_backward<OnDevice>>);
        return handlers;
      },
      py::arg("device"));
  m.def("xla_version", [] { return py::make_tuple(XLA_FFI_API_MAJOR, XLA_FFI_API_MINOR); });
}

}  // namespace fastrnn::python

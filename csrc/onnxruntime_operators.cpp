// Custom operators for ONNX Runtime: fastrnn.RNN, fastrnn.LSTM and fastrnn.GRU, into which fastrnn.onnx turns the nodes
// of a model. ONNX Runtime loads this module by its path and calls RegisterCustomOps.
//
// Their attributes are those of onnx::Attributes. Their inputs are ONNX' in the order of onnx::Inputs, then
// sequence_lens. ONNX Runtime does not infer types where an input in between is absent: W stands there then, and
// `present` has a bit for each input that is meant.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "onnx_operator.h"
#include "onnxruntime_abi.h"

namespace fastrnn::onnxruntime {
namespace {

using onnx::Element;
using onnx::Shape;
using onnx::Tensor;

// --- errors ---------------------------------------------------------------------------------------------------------

struct Failed {  // a call of ONNX Runtime's
  Status* status;
};
void check(Status* status) {
  if (status) throw Failed{status};
}

// No exception may reach ONNX Runtime.
template <class Function> Status* guarded(const Api& api, const Function& function) noexcept {
  try {
    function();
    return nullptr;
  } catch (const Failed& failed) {
    return failed.status;
  } catch (const std::invalid_argument& error) {
    return api.call<entry::CreateStatus>(invalid_argument, error.what());
  } catch (const std::bad_alloc&) {
    return api.call<entry::CreateStatus>(fail, "fastrnn: not enough memory");
  } catch (const std::exception& error) {
    return api.call<entry::CreateStatus>(fail, error.what());
  }
}

// --- operators ------------------------------------------------------------------------------------------------------

struct Operator : CustomOp {
  const Api* api;
  bool references;  // to shapes: the table has them
  const char* name;
  const char* kind;  // how the names of its cells begin
  Element element;
  bool has_cell;

  size_t inputs() const { return has_cell ? 7 : 5; }  // without sequence_lens
  size_t outputs() const { return has_cell ? 3 : 2; }
};
const Operator& self(const CustomOp* op) { return *static_cast<const Operator*>(op); }

ElementType type_of(const Operator& op) {
  switch (op.element) {
    case Element::float32:
      return element_float;
    case Element::float64:
      return element_double;
    case Element::float16:
      return element_float16;
    case Element::bfloat16:
      break;
  }
  return element_bfloat16;
}

// --- tensors --------------------------------------------------------------------------------------------------------

Shape dimensions(const Api& api, const TypeAndShape* info) {
  size_t rank = 0;
  check(api.call<entry::GetDimensionsCount>(info, &rank));
  int64_t sizes[Shape::kept];
  check(api.call<entry::GetDimensions>(info, &sizes[0], std::min(rank, Shape::kept)));
  return {sizes, rank};
}

void* data_of(const Api& api, Value* value) {
  void* data = nullptr;
  check(api.call<entry::GetTensorMutableData>(value, &data));
  return data;
}

Shape shape_of(const Operator& op, const Value* value) {
  const Api& api = *op.api;
  if (op.references) {  // which need no copy on the heap
    ElementType element{};
    const int64_t* sizes = nullptr;
    size_t rank = 0;
    check(api.call<entry::GetTensorElementTypeAndShapeDataReference>(value, &element, &sizes, &rank));
    return {sizes, rank};
  }
  TypeAndShape* info = nullptr;
  check(api.call<entry::GetTensorTypeAndShape>(value, &info));
  const auto release = [&](TypeAndShape* p) { api.release<entry::ReleaseTensorTypeAndShapeInfo>(p); };
  const std::unique_ptr<TypeAndShape, decltype(release)> owner(info, release);
  return dimensions(api, info);
}

Tensor tensor(const Operator& op, const Value* value) {
  if (!value) return {};
  return {data_of(*op.api, const_cast<Value*>(value)), shape_of(op, value)};  // inputs are only read
}

// --- kernels --------------------------------------------------------------------------------------------------------

int64_t integer(const Api& api, const KernelInfo* info, const char* name) {
  int64_t value = 0;
  check(api.call<entry::KernelInfoGetAttribute_int64>(info, name, &value));
  return value;
}

double real(const Api& api, const KernelInfo* info, const char* name) {
  float value = 0;
  check(api.call<entry::KernelInfoGetAttribute_float>(info, name, &value));
  return value;
}

std::string string(const Api& api, const KernelInfo* info, const char* name) {
  size_t size = 0;
  check(api.call<entry::KernelInfoGetAttribute_string>(info, name, static_cast<char*>(nullptr), &size));
  std::string value(size, '\0');
  check(api.call<entry::KernelInfoGetAttribute_string>(info, name, value.data(), &size));
  value.resize(size - 1);
  return value;
}

Cell cell_named(const std::string& name, const std::string& kind) {
  for (const CellTraits& cell : all_cells()) {
    if (name == cell.name && name.substr(0, name.find('_')) == kind) return cell.cell;
  }
  throw std::invalid_argument("cell: expected a name that begins with " + kind + ", got '" + name + "'");
}

Function function_named(std::string_view name) {
  const auto& names = function_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end())
    throw std::invalid_argument("activations: no function is named '" + std::string(name) + "'");
  return static_cast<Function>(found - names.begin());
}

// "tanh 0.0 0.0 affine 2.0 1.0", by direction.
void read_activations(const std::string& text, Spec& spec) {
  const int count = traits(spec.cell).functions;
  const char *at = text.data(), *const end = at + text.size();
  const auto word = [&] {
    const char* const begin = std::find_if(at, end, [](char c) { return c != ' '; });
    at = std::find(begin, end, ' ');
    return std::string_view(begin, at);
  };
  const auto number = [&] {
    const std::string_view digits = word();
    double value = 0;
    const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc()) throw std::invalid_argument("activations: expected a number, got '" + text + "'");
    return value;
  };
  for (int64_t direction = 0; direction < spec.directions(); ++direction) {
    for (int f = 0; f < count; ++f) {
      Activation& activation = spec.options->functions[direction][f];
      activation.function = function_named(word());
      activation.alpha = number();
      activation.beta = number();
    }
  }
}

class Kernel {
 public:
  Kernel(const Operator& op, const KernelInfo* info) : op_(op), api_(*op.api) {
    const Api& api = api_;
    Spec& spec = attributes_.spec;
    spec.cell = cell_named(string(api, info, "cell"), op.kind);
    spec.num_layers = 1;
    spec.hidden_size = integer(api, info, "hidden_size");
    spec.bidirectional = integer(api, info, "bidirectional");
    attributes_.element = op.element;
    attributes_.reverse = integer(api, info, "reverse");
    attributes_.batch_first = integer(api, info, "batch_first");
    attributes_.threads = static_cast<int>(std::clamp<int64_t>(integer(api, info, "threads"), 0, 1 << 16));
    needed_ = integer(api, info, "present");
    if (integer(api, info, "options")) {
      const double clip = real(api, info, "clip");
      spec.options = Options{{},
                             clip > 0 ? clip : std::numeric_limits<double>::infinity(),
                             integer(api, info, "coupled") != 0,
                             needs(onnx::P)};
      read_activations(string(api, info, "activations"), spec);
    }
    onnx::Inputs constants;
    for (const int input : weights) {
      if (!needs(input)) continue;
      int constant = 0;
      const Value* value = nullptr;
      check(api.call<entry::KernelInfoGetConstantInput_tensor>(info, static_cast<size_t>(input), &constant, &value));
      if (!constant) return;
      constants[input] = tensor(op, value);
    }
    prepared_ = onnx::prepare(attributes_, constants);
    for (const int input : weights) needed_ &= ~(int64_t{1} << input);
  }

  void compute(Context* context) const {
    const auto input = [&](size_t index) {
      const Value* value = nullptr;
      check(api_.call<entry::KernelContext_GetInput>(context, index, &value));
      return tensor(op_, value);
    };
    onnx::Inputs in;
    for (size_t i = 0; i < op_.inputs(); ++i) {
      if (needs(static_cast<int>(i))) in[i] = input(i);
    }
    Tensor sequence_lens;
    if (needs(onnx::inputs_but_lengths)) sequence_lens = input(op_.inputs());
    std::optional<onnx::Network> computed;
    if (!prepared_) computed = onnx::network(attributes_, in);
    const onnx::Network& network = prepared_ ? *prepared_ : *computed;
    const auto shapes = onnx::output_shapes(attributes_, network, in, sequence_lens);
    onnx::Outputs out{};
    for (size_t i = 0; i < op_.outputs(); ++i) {
      Value* value = nullptr;
      check(api_.call<entry::KernelContext_GetOutput>(context, i, shapes[i].begin(), shapes[i].rank(), &value));
      if (value) out[i] = data_of(api_, value);
    }
    onnx::run(attributes_, network, in, sequence_lens, out);
  }

  const Api& api() const { return api_; }

 private:
  static constexpr int weights[] = {onnx::W, onnx::R, onnx::B, onnx::P};
  bool needs(int input) const { return needed_ >> input & 1; }

  const Operator& op_;
  const Api& api_;
  onnx::Attributes attributes_{};
  int64_t needed_;  // a bit for each input that a call reads: all that are present, but for weights that are packed
  std::optional<onnx::Network> prepared_;  // none where one of the weights is computed by the model
};

// --- shapes, before there are tensors -------------------------------------------------------------------------------

// Sizes of axes; one that is not known has a name, or neither.
struct Axis {
  int64_t size;
  const char* name;
};

void infer_shapes(const Operator& op, const ShapeContext* context) {
  const Api& api = *op.api;
  const auto integer = [&](const char* name) {
    const Attribute* attribute = nullptr;
    check(api.call<entry::ShapeInferContext_GetAttribute>(context, name, &attribute));
    int64_t value = 0;
    size_t size = 0;
    check(api.call<entry::ReadOpAttr>(attribute, attribute_int, static_cast<void*>(&value), sizeof(value), &size));
    return value;
  };
  TypeAndShape* x = nullptr;  // the context's
  check(api.call<entry::ShapeInferContext_GetInputTypeShape>(context, size_t{0}, &x));
  const Shape sizes = dimensions(api, x);
  if (sizes.rank() != 3) return;
  ElementType element{};  // which may be another than this operator's: ONNX Runtime asks any one of its name
  check(api.call<entry::GetTensorElementType>(static_cast<const TypeAndShape*>(x), &element));
  const char* names[3] = {};
  check(api.call<entry::GetSymbolicDimensions>(static_cast<const TypeAndShape*>(x), &names[0], size_t{3}));
  const bool batch_first = integer("batch_first");
  const Axis T{sizes[batch_first], names[batch_first]}, N{sizes[!batch_first], names[!batch_first]};
  const Axis D{1 + integer("bidirectional"), ""}, H{integer("hidden_size"), ""};
  const auto known = [](const Axis& axis) { return axis.size >= 0 || *axis.name; };
  if (!known(T) || !known(N) || H.size < 1) return;
  const std::vector<Axis> y = batch_first ? std::vector{N, T, D, H} : std::vector{T, D, N, H};
  const std::vector<Axis> state = batch_first ? std::vector{N, D, H} : std::vector{D, N, H};
  const auto present = static_cast<size_t>(std::max<int64_t>(0, integer("outputs")));  // more must not be named
  for (size_t output = 0; output < std::min(present, op.outputs()); ++output) {
    std::vector<int64_t> shape;
    std::vector<const char*> symbols;
    for (const Axis& axis : output ? state : y)
      shape.push_back(axis.size), symbols.push_back(axis.size < 0 ? axis.name : "");
    TypeAndShape* info = nullptr;
    check(api.call<entry::CreateTensorTypeAndShapeInfo>(&info));
    const auto release = [&](TypeAndShape* p) { api.release<entry::ReleaseTensorTypeAndShapeInfo>(p); };
    const std::unique_ptr<TypeAndShape, decltype(release)> owner(info, release);
    check(api.call<entry::SetTensorElementType>(info, element));
    check(api.call<entry::SetDimensions>(info, static_cast<const int64_t*>(shape.data()), shape.size()));
    check(api.call<entry::SetSymbolicDimensions>(info, symbols.data(), symbols.size()));
    check(
        api.call<entry::ShapeInferContext_SetOutputTypeShape>(context, output, static_cast<const TypeAndShape*>(info)));
  }
}

// --- what ONNX Runtime calls ----------------------------------------------------------------------------------------

Operator make(const Api& api, bool references, const char* name, const char* kind, Element element, bool has_cell) {
  Operator made{};
  made.api = &api, made.references = references, made.name = name, made.kind = kind, made.element = element,
  made.has_cell = has_cell;
  made.version = api_version;
  made.GetName = [](const CustomOp* op) { return self(op).name; };
  made.GetExecutionProviderType = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU's
  made.GetInputTypeCount = [](const CustomOp* op) { return self(op).inputs() + 1; };
  made.GetInputType = [](const CustomOp* op, size_t i) {
    return i < self(op).inputs() ? type_of(self(op)) : element_int32;
  };
  made.GetInputCharacteristic = [](const CustomOp* op, size_t i) {
    return i < self(op).inputs() ? required : optional;
  };
  made.GetInputMemoryType = [](const CustomOp*, size_t) { return default_memory; };
  made.GetOutputTypeCount = [](const CustomOp* op) { return self(op).outputs(); };
  made.GetOutputType = [](const CustomOp* op, size_t) { return type_of(self(op)); };
  made.GetOutputCharacteristic = [](const CustomOp*, size_t) { return optional; };
  made.CreateKernelV2 = [](const CustomOp* op, const Api*, const KernelInfo* info, void** kernel) {
    return guarded(*self(op).api, [&] { *kernel = new Kernel(self(op), info); });
  };
  made.KernelComputeV2 = [](void* kernel, Context* context) {
    const auto& ready = *static_cast<const Kernel*>(kernel);
    return guarded(ready.api(), [&] { ready.compute(context); });
  };
  made.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  made.InferOutputShapeFn = [](const CustomOp* op, ShapeContext* context) {
    return guarded(*self(op).api, [&] { infer_shapes(self(op), context); });
  };
  return made;
}

// Asked for a version that it has not, ONNX Runtime says so on the standard error, too.
bool knows(const ApiBase& base, uint32_t version) {
  unsigned major = 0, minor = 0;
  return std::sscanf(base.GetVersionString(), "%u.%u", &major, &minor) == 2 && (major > 1 || minor >= version);
}

// The operators, for each ONNX Runtime that the process has. They live as long as the process: sessions may end at its
// very end.
Domain* domain(const Api& api, bool references) {
  struct Registered {
    std::vector<Operator> operators;
    Domain* domain = nullptr;
  };
  static std::mutex mutex;
  static auto& known = *new std::map<const Api*, Registered>;
  const std::lock_guard lock(mutex);
  Registered& ours = known[&api];
  if (ours.domain) return ours.domain;
  ours.operators.clear();
  for (const Element element : {Element::float32, Element::float64, Element::float16, Element::bfloat16}) {
    ours.operators.push_back(make(api, references, "RNN", "rnn", element, false));
    ours.operators.push_back(make(api, references, "LSTM", "lstm", element, true));
    ours.operators.push_back(make(api, references, "GRU", "gru", element, false));
  }
  Domain* made = nullptr;
  check(api.call<entry::CreateCustomOpDomain>("fastrnn", &made));
  for (const Operator& op : ours.operators) {
    check(api.call<entry::CustomOpDomain_Add>(made, static_cast<const CustomOp*>(&op)));
  }
  return ours.domain = made;
}

}  // namespace
}  // namespace fastrnn::onnxruntime

extern "C" __attribute__((visibility("default"))) fastrnn::onnxruntime::Status* RegisterCustomOps(
    fastrnn::onnxruntime::SessionOptions* options, const fastrnn::onnxruntime::ApiBase* base) {
  using namespace fastrnn::onnxruntime;
  const bool references = knows(*base, api_version_with_references);
  const Api* api = base->GetApi(references ? api_version_with_references : api_version);
  if (!api) {  // CreateStatus has been in the table since its first version
    return base->GetApi(1)->call<entry::CreateStatus>(fail, "fastrnn needs ONNX Runtime 1.17 or newer");
  }
  return guarded(*api, [&] { check(api->call<entry::AddCustomOpDomain>(options, domain(*api, references))); });
}

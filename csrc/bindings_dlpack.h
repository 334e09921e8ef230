// Arrays to and from other libraries by DLPack, which names two structures in memory, of before and from its version 1
// (https://dmlc.github.io/dlpack/latest/c_api.html), and how they travel in Python's capsules
// (https://dmlc.github.io/dlpack/latest/python_spec.html).
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings_gil.h"

namespace fastrnn::dlpack {

namespace py = pybind11;

struct Device {
  int32_t type, id;
};
inline constexpr int32_t cuda_memory = 2;  // a Device's type
struct ElementType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t dimensions;
  ElementType type;
  int64_t* shape;
  int64_t* strides;  // in elements; null: C-contiguous
  uint64_t byte_offset;
};

struct Managed {
  static constexpr const char *name = "dltensor", *used_name = "used_dltensor";
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
struct ManagedVersioned {
  static constexpr const char *name = "dltensor_versioned", *used_name = "used_dltensor_versioned";
  uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Tensor tensor;
};
inline constexpr uint32_t version = 1;

// ------------------------------------------------------------------------------------------------------------- taking

// An array that another library has lent: until this object ends. Making one throws BufferError.
class Borrowed {
 public:
  explicit Borrowed(const py::object& capsule) {
    if (PyCapsule_IsValid(capsule.ptr(), ManagedVersioned::name)) {
      const auto* managed = take<ManagedVersioned>(capsule);
      if (managed->major != version) throw py::buffer_error("DLPack of version " + std::to_string(managed->major));
    } else if (PyCapsule_IsValid(capsule.ptr(), Managed::name)) {
      take<Managed>(capsule);
    } else {
      throw py::buffer_error("__dlpack__() gave no capsule with an array that is still to be taken");
    }
  }

  uintptr_t address() const { return reinterpret_cast<uintptr_t>(tensor_->data) + tensor_->byte_offset; }
  std::vector<int64_t> shape() const { return {tensor_->shape, tensor_->shape + tensor_->dimensions}; }
  std::vector<int64_t> strides() const {
    if (tensor_->strides) return {tensor_->strides, tensor_->strides + tensor_->dimensions};
    std::vector<int64_t> dense(static_cast<size_t>(tensor_->dimensions), 1);
    for (size_t i = dense.size(); i-- > 1;) dense[i - 1] = dense[i] * tensor_->shape[i];
    return dense;
  }
  std::pair<int, int> device() const { return {tensor_->device.type, tensor_->device.id}; }
  py::tuple type() const { return py::make_tuple(tensor_->type.code, tensor_->type.bits, tensor_->type.lanes); }

 private:
  template <class M> const M* take(const py::object& capsule) {
    auto* managed = static_cast<M*>(PyCapsule_GetPointer(capsule.ptr(), M::name));
    if (PyCapsule_SetName(capsule.ptr(), M::used_name) != 0) throw py::error_already_set();
    tensor_ = {&managed->tensor, [managed](const Tensor*) {
                 if (managed->deleter) managed->deleter(managed);
               }};
    return managed;
  }

  std::shared_ptr<const Tensor> tensor_;
};

// ------------------------------------------------------------------------------------------------------------- giving

// A capsule with a C-contiguous array, whose memory `owner` keeps.
template <class M>
py::object lent(py::object owner, uintptr_t address, std::vector<int64_t> shape, ElementType type, Device device) {
  struct Loan {
    M managed{};
    py::object owner;
    std::vector<int64_t> shape, strides;
  };
  auto loan = std::make_unique<Loan>();
  loan->owner = std::move(owner), loan->shape = std::move(shape);
  loan->strides.assign(loan->shape.size(), 1);
  for (size_t i = loan->strides.size(); i-- > 1;) loan->strides[i - 1] = loan->strides[i] * loan->shape[i];
  M& managed = loan->managed;
  managed.tensor = {reinterpret_cast<void*>(address),
                    device,
                    static_cast<int32_t>(loan->shape.size()),
                    type,
                    loan->shape.data(),
                    loan->strides.data(),
                    0};
  managed.context = loan.get();
  managed.deleter = [](M* done) {
    if (!Py_IsInitialized()) return;  // the process ends, and its memory with it
    python::with_gil([&] { delete static_cast<Loan*>(done->context); });
  };
  if constexpr (std::is_same_v<M, ManagedVersioned>) managed.major = version;
  PyObject* capsule = PyCapsule_New(&managed, M::name, [](PyObject* unused) {
    if (!PyCapsule_IsValid(unused, M::name)) return;  // taken
    auto* untaken = static_cast<M*>(PyCapsule_GetPointer(unused, M::name));
    untaken->deleter(untaken);
  });
  if (!capsule) throw py::error_already_set();
  static_cast<void>(loan.release());
  return py::reinterpret_steal<py::object>(capsule);
}

}  // namespace fastrnn::dlpack

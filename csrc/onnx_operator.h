// The operators RNN, LSTM and GRU of ONNX on the core: their gate order, layouts, directions and element types. It
// knows no runtime; bindings_onnx.cpp calls it with NumPy's arrays, onnxruntime_operators.cpp with ONNX Runtime's
// tensors.
//
// Source: the operators' specification (https://onnx.ai/onnx/operators/), and ONNX Runtime where that is silent: the
// state of a sequence of length 0 is zero. Names of tensors are the specification's.
#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>

#include "fastrnn.h"

namespace fastrnn::onnx {

enum class Element { float32, float64, float16, bfloat16 };  // the last two are computed in float32

// Sizes of axes, in place. No right tensor has more than four; of one with more than `kept`, the first ones are known.
class Shape {
 public:
  static constexpr size_t kept = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) : Shape(sizes.begin(), sizes.size()) {}
  template <class Size> Shape(const Size* sizes, size_t rank) : rank_(rank) {
    std::copy_n(sizes, std::min(rank, kept), sizes_);
  }

  size_t rank() const { return rank_; }
  int64_t operator[](size_t axis) const { return sizes_[axis]; }
  const int64_t* begin() const { return sizes_; }
  const int64_t* end() const { return sizes_ + std::min(rank_, kept); }
  bool operator==(const Shape& other) const {
    return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
  }

 private:
  size_t rank_ = 0;
  int64_t sizes_[kept] = {};
};

// An input, C-contiguous; or none. One of no elements may have no data.
struct Tensor {
  void* data = nullptr;
  Shape shape;

  bool absent() const { return !data && shape.rank() == 0; }
};

struct Attributes {
  Spec spec;  // without input_size, dtype and bias, which follow from the inputs; hidden_size 0 is that of R
  Element element;
  bool reverse;      // the one direction of the spec goes back
  bool batch_first;  // layout=1
  int threads;       // as Forward::threads
};

enum { X, W, R, B, initial_h, initial_c, P, inputs_but_lengths };  // of type T
using Inputs = std::array<Tensor, inputs_but_lengths>;

enum { Y, Y_h, Y_c, all_outputs };
using Outputs = std::array<void*, all_outputs>;  // C-contiguous, of output_shapes(); null: nobody wants it

// What attributes and weights make together.
struct Network {
  Spec spec;
  std::optional<Packed> packed;  // none: the weights are those of the call's inputs
};

// These throw std::invalid_argument, which names the tensor, where shapes do not fit together.
Network network(const Attributes&, const Inputs&);  // of W, R, B and P alone
Network prepare(const Attributes&, const Inputs&);  // the same, packed: calls need these inputs no more
std::array<Shape, all_outputs> output_shapes(const Attributes&, const Network&, const Inputs&,
                                             const Tensor& sequence_lens);

// One call. The arguments are those that output_shapes() has checked. `sequence_lens`, of int32, can be absent. Throws
// std::invalid_argument for a length that is not in 0 ... T.
void run(const Attributes&, const Network&, const Inputs&, const Tensor& sequence_lens, const Outputs&);

}  // namespace fastrnn::onnx

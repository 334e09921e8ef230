// The operators RNN, LSTM and GRU of ONNX on the core: their gate order, layouts, directions and element types. It
// knows no runtime; bindings_onnx.cpp calls it with NumPy's arrays, onnxruntime_operators.cpp with ONNX Runtime's
// tensors.
//
// Source: the operators' specification (https://onnx.ai/onnx/operators/), and ONNX Runtime where that is silent: the
// state of a sequence of length 0 is zero. Names of tensors are the specification's.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "fastrnn.h"

namespace fastrnn::onnx {

enum class Element { float32, float64, float16, bfloat16 };  // the last two are computed in float32

using Shape = std::vector<int64_t>;

// C-contiguous. Absent: an input that is not there, or an output that nobody wants. One of no elements may have no
// data.
struct Tensor {
  void* data = nullptr;
  Shape shape;

  bool absent() const { return !data && shape.empty(); }
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
using Outputs = std::array<Tensor, all_outputs>;

// A network's weights in the core's gate order, packed.
struct Weights {
  Spec spec;
  Packed packed;
};

// Both throw std::invalid_argument, which names the tensor, where shapes do not fit together.
Weights prepare(const Attributes&, const Inputs&);  // of W, R, B and P alone
std::array<Shape, all_outputs> output_shapes(const Attributes&, const Inputs&, const Tensor& sequence_lens);

// One call, with weights that were prepared or with those of the inputs. The arguments are those that output_shapes()
// has checked. `sequence_lens`, of int32, can be absent. Throws std::invalid_argument for a length that is not in 0 ...
// T.
void run(const Attributes&, const Weights*, const Inputs&, const Tensor& sequence_lens, const Outputs&);

}  // namespace fastrnn::onnx

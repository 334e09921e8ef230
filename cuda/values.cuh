// Storage types and what is computed with them: float for the 16-bit types and float itself, double for double.
#pragma once

#include <cmath>

#include "port.cuh"

namespace fastrnn::cuda {

template <class T> struct ComputedAs {
  using Type = float;
};
template <> struct ComputedAs<double> {
  using Type = double;
};
template <class T> using Computed = typename ComputedAs<T>::Type;

FASTRNN_FN float widen(float value) { return value; }
FASTRNN_FN double widen(double value) { return value; }

template <class T> FASTRNN_FN T narrow(Computed<T> value) {
  if constexpr (std::is_same_v<T, Computed<T>>) {
    return value;
  } else {
    T to;
    round_into(to, value);
    return to;
  }
}

template <class T> constexpr DType dtype_of = DType::float32;
template <> inline constexpr DType dtype_of<double> = DType::float64;
template <> inline constexpr DType dtype_of<Half> = DType::float16;
template <> inline constexpr DType dtype_of<BFloat16> = DType::bfloat16;

// The functions that the cells are written with. exp overflows to infinity where the logistic function is 0.
FASTRNN_FN float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
FASTRNN_FN double fma(double a, double b, double c) { return ::fma(a, b, c); }
FASTRNN_FN float tanh(float x) { return ::tanhf(x); }
FASTRNN_FN double tanh(double x) { return ::tanh(x); }
FASTRNN_FN float sigmoid(float x) { return 1 / (1 + ::expf(-x)); }
FASTRNN_FN double sigmoid(double x) { return 1 / (1 + ::exp(-x)); }
template <class V> FASTRNN_FN V relu(V x) { return x < V{} ? V{} : x; }

}  // namespace fastrnn::cuda

#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"

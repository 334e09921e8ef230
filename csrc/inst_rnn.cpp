#include "activations.h"
#include "cells/rnn.h"
#include "chosen.h"
#include "sequence.h"

namespace fastrnn::FASTRNN_ARCH {

template <class T> using RnnWithOptions = RnnOf<Chosen<T, 1, 1>>;

extern const Kernels<float> rnn_tanh_float32 = make_kernels<Rnn<Tanh>, float>();
extern const Kernels<double> rnn_tanh_float64 = make_kernels<Rnn<Tanh>, double>();
extern const Kernels<float> rnn_relu_float32 = make_kernels<Rnn<Relu>, float>();
extern const Kernels<double> rnn_relu_float64 = make_kernels<Rnn<Relu>, double>();
extern const Kernels<float> rnn_sigmoid_float32 = make_kernels<Rnn<Sigmoid>, float>();
extern const Kernels<double> rnn_sigmoid_float64 = make_kernels<Rnn<Sigmoid>, double>();
extern const Kernels<float> rnn_options_float32 = make_kernels<RnnWithOptions<float>, float>();
extern const Kernels<double> rnn_options_float64 = make_kernels<RnnWithOptions<double>, double>();

}  // namespace fastrnn::FASTRNN_ARCH

#include "activations.h"
#include "cells/lstm.h"
#include "chosen.h"
#include "sequence.h"

namespace fastrnn::FASTRNN_ARCH {

template <class T> using LstmWithOptions = LstmOf<Chosen<T, 4, 3>>;

extern const Kernels<float> lstm_float32 = make_kernels<Lstm, float>();
extern const Kernels<double> lstm_float64 = make_kernels<Lstm, double>();
extern const Kernels<float> lstm_options_float32 = make_kernels<LstmWithOptions<float>, float>();
extern const Kernels<double> lstm_options_float64 = make_kernels<LstmWithOptions<double>, double>();

}  // namespace fastrnn::FASTRNN_ARCH

#include "activations.h"
#include "cells/lstm.h"
#include "sequence.h"

namespace fastrnn::FASTRNN_ARCH {

extern const Kernels<float> lstm_float32 = make_kernels<Lstm, float>();
extern const Kernels<double> lstm_float64 = make_kernels<Lstm, double>();

}  // namespace fastrnn::FASTRNN_ARCH

#include "activations.h"
#include "cells/gru.h"
#include "sequence.h"

namespace fastrnn::FASTRNN_ARCH {

extern const Kernels<float> gru_float32 = make_kernels<Gru, float>();
extern const Kernels<double> gru_float64 = make_kernels<Gru, double>();
extern const Kernels<float> gru_reset_before_float32 = make_kernels<GruResetBefore, float>();
extern const Kernels<double> gru_reset_before_float64 = make_kernels<GruResetBefore, double>();

}  // namespace fastrnn::FASTRNN_ARCH

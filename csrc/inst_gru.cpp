#include "activations.h"
#include "cells/gru.h"
#include "chosen.h"
#include "sequence.h"

namespace fastrnn::FASTRNN_ARCH {

template <class T> using GruWithOptions = GruOf<Chosen<T, 3, 2>>;
template <class T> using GruResetBeforeWithOptions = GruResetBeforeOf<Chosen<T, 3, 2>>;

extern const Kernels<float> gru_float32 = make_kernels<Gru, float>();
extern const Kernels<double> gru_float64 = make_kernels<Gru, double>();
extern const Kernels<float> gru_options_float32 = make_kernels<GruWithOptions<float>, float>();
extern const Kernels<double> gru_options_float64 = make_kernels<GruWithOptions<double>, double>();
extern const Kernels<float> gru_reset_before_float32 = make_kernels<GruResetBefore, float>();
extern const Kernels<double> gru_reset_before_float64 = make_kernels<GruResetBefore, double>();
extern const Kernels<float> gru_reset_before_options_float32 = make_kernels<GruResetBeforeWithOptions<float>, float>();
extern const Kernels<double> gru_reset_before_options_float64 =
    make_kernels<GruResetBeforeWithOptions<double>, double>();

}  // namespace fastrnn::FASTRNN_ARCH

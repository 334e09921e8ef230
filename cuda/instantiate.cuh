// What an inst_*.cu file holds: one cell in every type.
#pragma once

#include "layer.cuh"

#define FASTRNN_CUDA_CELL(name, ...)                                          \
  extern const Kernels name##_float32 = layer_kernels<__VA_ARGS__, float>();  \
  extern const Kernels name##_float64 = layer_kernels<__VA_ARGS__, double>(); \
  extern const Kernels name##_float16 = layer_kernels<__VA_ARGS__, Half>();   \
  extern const Kernels name##_bfloat16 = layer_kernels<__VA_ARGS__, BFloat16>();

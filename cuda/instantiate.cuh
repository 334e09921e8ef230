// What an inst_*.cu file holds: one cell in every type.
#pragma once

#include "step_by_step.cuh"

#define FASTRNN_CUDA_CELL(name, ...)                                         \
  extern const Kernels name##_float32 = step_by_step<__VA_ARGS__, float>();  \
  extern const Kernels name##_float64 = step_by_step<__VA_ARGS__, double>(); \
  extern const Kernels name##_float16 = step_by_step<__VA_ARGS__, Half>();   \
  extern const Kernels name##_bfloat16 = step_by_step<__VA_ARGS__, BFloat16>();

// The registry: cell x type -> kernels.
#include "registry.h"

// In the order of the enumeration.
#define FASTRNN_CELLS(CELL) CELL(rnn_tanh) CELL(rnn_relu) CELL(rnn_sigmoid) CELL(lstm) CELL(gru) CELL(gru_reset_before)

namespace fastrnn::cuda {

#define CELL(cell) extern const Kernels cell##_float32, cell##_float64, cell##_float16, cell##_bfloat16;
FASTRNN_CELLS(CELL)
#undef CELL

const Kernels& kernels(Cell cell, DType dtype) {
#define CELL(cell) {&cell##_float32, &cell##_float64, &cell##_float16, &cell##_bfloat16},
  static const Kernels* const all[][4] = {FASTRNN_CELLS(CELL)};  // types in the order of their enumeration
#undef CELL
  return *all[static_cast<size_t>(cell)][static_cast<size_t>(dtype)];
}

}  // namespace fastrnn::cuda

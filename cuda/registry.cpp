// The registry: cell x type -> kernels.
#include "registry.h"

namespace fastrnn::cuda {

#define CELL(cell, with_options) extern const Kernels cell##_float32, cell##_float64, cell##_float16, cell##_bfloat16;
FASTRNN_CELLS(CELL)
#undef CELL

const Kernels& kernels(Cell cell, DType dtype) {
#define CELL(cell, with_options) {&cell##_float32, &cell##_float64, &cell##_float16, &cell##_bfloat16},
  static const Kernels* const all[][4] = {FASTRNN_CELLS(CELL)};  // types in the order of their enumeration
#undef CELL
  return *all[static_cast<size_t>(cell)][static_cast<size_t>(dtype)];
}

}  // namespace fastrnn::cuda

// Gathers what an instruction set offers for one cell and value type.
#pragma once

#include "sequence_backward.h"
#include "sequence_forward.h"

namespace fastrnn::FASTRNN_ARCH {

template <class Cell, class T> constexpr Kernels<T> make_kernels() {
  return {
      Cell::gates,
      Cell::saved,
      Cell::Functions::count,
      Cell::has_cell,
      Cell::reset_first,
      lanes<T>,
      [](const Dims& d) { return ForwardPack<Cell, T>(d).size; },
      [](const Dims& d) { return BackwardPack<Cell, T>(d).size; },
      forward_pack<Cell, T>,
      backward_pack<Cell, T>,
      ForwardPass<Cell, T>::scratch,
      BackwardPass<Cell, T>::scratch,
      [](const Sequence<T>& s, const Member& me) { ForwardPass<Cell, T>(s, me).run(); },
      [](const SequenceGradient<T>& s, const Member& me) { BackwardPass<Cell, T>(s, me).run(); },
  };
}

}  // namespace fastrnn::FASTRNN_ARCH

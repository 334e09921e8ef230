// What the network (stack.cu) hands to the kernels of one layer and direction: plain data. Pointers are of device
// memory.
#pragma once

#include "kernels.h"
#include "plan.h"
#include "products.h"

namespace fastrnn::cuda {

struct Sequence {
  Dims dims;
  const int64_t* lengths;  // (B), or null
  bool reverse;
  const void* x;  // (T B, I) with so many elements from row to row; 0 past a row's length
  int64_t x_stride;
  Strided y;  // this direction's columns
  const void *h0, *c0;
  void *h_n, *c_n;
  void *saved, *cells;  // tape, or null
  LayerWeights weights;
  Partition how;
};

struct SequenceGradient : Sequence {
  Strided dy;       // this direction's columns, or null
  Dropout dropout;  // that dy comes through
  int64_t column;   // of dy's first column in what is dropped
  const void *dh_n, *dc_n;
  void *dh0, *dc0;
  void* dx;  // (T B, I), or null
  int64_t dx_stride;
  bool add_dx;  // to what is there
  LayerGradients gradients;
};

// One cell and type. `workspace` is of the size that the function before it tells; the two parts of a backward call
// share theirs.
struct Kernels {
  int gates;
  int saved;  // values a unit and step on the tape
  bool has_cell;
  int step_products;  // that follow one another in a step
  size_t (*resident_bytes)(const Dims&, const Partition&, bool backward);  // as StepProblem's
  size_t (*forward_workspace)(const Sequence&);
  void (*forward)(const Sequence&, std::byte* workspace, Stream, Products&);
  size_t (*backward_workspace)(const SequenceGradient&);
  void (*backward_steps)(const SequenceGradient&, std::byte* workspace, Stream, Products&);
  void (*backward_products)(const SequenceGradient&, std::byte* workspace, Stream, Products&);
};

const Kernels& kernels(Cell, DType);

}  // namespace fastrnn::cuda

// Rows of the batch in time, and how threads are shared out over elements.
#pragma once

#include <algorithm>

#include "registry.h"
#include "values.cuh"

namespace fastrnn::cuda {

// Where each row is at a step. A row of the reverse direction starts at its own last step.
struct Rows {
  int64_t count, steps;
  const int64_t* lengths;  // or null
  bool reverse;

  FASTRNN_FN int64_t length(int64_t row) const { return lengths ? lengths[row] : steps; }
  FASTRNN_FN bool alive(int64_t row, int64_t step) const { return step < length(row); }
  FASTRNN_FN int64_t time(int64_t row, int64_t step) const { return reverse ? length(row) - 1 - step : step; }
  FASTRNN_FN int64_t step(int64_t row, int64_t time_) const { return reverse ? length(row) - 1 - time_ : time_; }
};

// f(row, column) for each of `width` elements of `count` rows, from all threads of a launch of element_shape.
template <class F> FASTRNN_FN void for_each_element(int64_t count, int64_t width, F f) {
  const int64_t blocks_a_row = (width + blockDim.x - 1) / blockDim.x;
  for (int64_t i = blockIdx.x; i < count * blocks_a_row; i += gridDim.x) {
    const int64_t column = i % blocks_a_row * blockDim.x + threadIdx.x;
    if (column < width) f(i / blocks_a_row, column);
  }
}

// Numbers of some rows and columns, from (row, column) on: of the whole batch in the device's memory, or of a block in
// its own.
template <class T> struct Tile {
  T* data;
  int64_t stride, row = 0, column = 0;

  FASTRNN_FN T& at(int64_t row_, int64_t column_) const { return data[(row_ - row) * stride + column_ - column]; }
};

// A stage is a struct with run(parameters, row, unit): here for all rows, from a launch of element_shape.
template <class Stage, class Parameters> __global__ void run_stage(Parameters s, int64_t width) {
  for_each_element(s.rows.count, width, [&](int64_t row, int64_t unit) { Stage::run(s, row, unit); });
}

inline Shape element_shape(int64_t count, int64_t width) {
  constexpr int64_t warp = 32, most_threads = 256, most_blocks = int64_t{1} << 20;
  const int64_t threads = std::min((width + warp - 1) / warp * warp, most_threads);
  const int64_t blocks = std::min(count * ((width + threads - 1) / threads), most_blocks);
  return {static_cast<unsigned>(blocks), static_cast<unsigned>(threads)};
}

// A kernel made of for_each_element.
template <class... P>
void launch_elements(int64_t count, int64_t width, Stream stream, void (*kernel)(P...),
                     const std::type_identity_t<P>&... arguments) {
  if (count > 0 && width > 0) launch(element_shape(count, width), stream, kernel, arguments...);
}

template <class Stage, class Parameters> void launch_stage(const Parameters& s, int64_t width, Stream stream) {
  launch_elements(s.rows.count, width, stream, run_stage<Stage, Parameters>, s, width);
}

}  // namespace fastrnn::cuda

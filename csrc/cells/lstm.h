// i, f, o = logistic(.), g = tanh(.), c' = f c + i g, h' = o tanh(c')
// (Hochreiter & Schmidhuber, Neural Computation 9, 1997; forget gate: Gers, Schmidhuber & Cummins, 2000).
// Rows of the weights: i, f, g, o.
#pragma once

#include "state.h"

namespace fastrnn::FASTRNN_ARCH {

struct Lstm {
  static constexpr int gates = 4, saved = 4, slots = 4;
  static constexpr int input_slot[] = {0, 1, 2, 3}, hidden_slot[] = {0, 1, 2, 3};
  static constexpr bool has_cell = true, carries = false, reset_first = false;

  template <class V> static FASTRNN_FN void forward(const V* x, const V* p, V* gate, State<V>& state) {
    const V i = gate[0] = sigmoid(x[0] + p[0]);
    const V f = gate[1] = sigmoid(x[1] + p[1]);
    const V g = gate[2] = tanh(x[2] + p[2]);
    gate[3] = sigmoid(x[3] + p[3]);
    state.c = fma(f, state.c, i * g);
    state.h = output(gate, state.c);
  }

  // h before a projection; backward computes it again instead of keeping it.
  template <class V> static FASTRNN_FN V output(const V* gate, V c) { return gate[3] * tanh(c); }

  template <class V>
  static FASTRNN_FN void backward(const V* gate, const State<V>& before, const State<V>& after, State<V>& d, V* slot) {
    const V i = gate[0], f = gate[1], g = gate[2], o = gate[3];
    const V tanh_c = tanh(after.c);
    const V dc = fma(d.h * o, 1 - tanh_c * tanh_c, d.c);
    slot[0] = dc * g * (i * (1 - i));
    slot[1] = dc * before.c * (f * (1 - f));
    slot[2] = dc * i * (1 - g * g);
    slot[3] = d.h * tanh_c * (o * (1 - o));
    d.c = dc * f;
  }
};

}  // namespace fastrnn::FASTRNN_ARCH

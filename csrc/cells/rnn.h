// h' = f(W_ih x + b_ih + W_hh h + b_hh) with f = tanh, relu or the logistic function (Elman, Cognitive Science 14,
// 1990).
#pragma once

#include "state.h"

namespace fastrnn::FASTRNN_ARCH {

struct Tanh {
  template <class V> static FASTRNN_FN V value(V x) { return tanh(x); }
  template <class V> static FASTRNN_FN V backward(V y, V dy) { return dy * (1 - y * y); }
};

struct Relu {
  template <class V> static FASTRNN_FN V value(V x) { return relu(x); }
  template <class V> static FASTRNN_FN V backward(V y, V dy) { return y <= V{} ? V{} : dy; }
};

struct Sigmoid {
  template <class V> static FASTRNN_FN V value(V x) { return sigmoid(x); }
  template <class V> static FASTRNN_FN V backward(V y, V dy) { return dy * (y * (1 - y)); }
};

template <class Activation> struct Rnn {
  static constexpr int gates = 1, saved = 0, slots = 1;
  static constexpr int input_slot[] = {0}, hidden_slot[] = {0};
  static constexpr bool has_cell = false, carries = false, reset_first = false;

  template <class V> static FASTRNN_FN void forward(const V* x, const V* p, V*, State<V>& state) {
    state.h = Activation::value(x[0] + p[0]);
  }

  template <class V>
  static FASTRNN_FN void backward(const V*, const State<V>&, const State<V>& after, State<V>& d, V* slot) {
    slot[0] = Activation::backward(after.h, d.h);
  }
};

}  // namespace fastrnn::FASTRNN_ARCH

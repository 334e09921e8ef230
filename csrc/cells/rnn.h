// h' = f(W_ih x + b_ih + W_hh h + b_hh) with f = tanh, relu or the logistic function (Elman, Cognitive Science 14,
// 1990).
#pragma once

#include "functions.h"
#include "state.h"

namespace fastrnn::FASTRNN_ARCH {

template <class F> struct RnnOf {
  using Functions = F;
  using Unit = typename F::Unit;
  // The published functions have their slopes from h itself.
  static constexpr int gates = 1, saved = F::chosen ? F::kept(gates) : 0, slots = 1;
  static constexpr int input_slot[] = {0}, hidden_slot[] = {0};
  static constexpr bool has_cell = false, carries = false, reset_first = false;

  template <class V>
  static FASTRNN_FN void forward(const V* x, const V* p, V* kept, State<V>& state, const Unit& u = {}) {
    state.h = u.template gate<0, 0>(x[0] + p[0], kept);
  }

  template <class V>
  static FASTRNN_FN void backward(const V* kept, const State<V>&, const State<V>& after, State<V>& d, V* slot,
                                  const Unit& u = {}) {
    slot[0] = u.template backward<0, 0>(saved ? kept : &after.h, d.h);
  }
};
template <class Function> using Rnn = RnnOf<Published<Function>>;

}  // namespace fastrnn::FASTRNN_ARCH

// i, f, o = logistic(.), g = tanh(.), c' = f c + i g, h' = o tanh(c')
// (Hochreiter & Schmidhuber, Neural Computation 9, 1997; forget gate: Gers, Schmidhuber & Cummins, 2000; peepholes:
// Gers & Schmidhuber, IJCNN 2000). Rows of the weights: i, f, g, o.
#pragma once

#include "functions.h"
#include "state.h"

namespace fastrnn::FASTRNN_ARCH {

template <class F> struct LstmOf {
  using Functions = F;
  using Unit = typename F::Unit;
  static constexpr int gates = 4, saved = F::kept(gates), slots = 4;
  static constexpr int input_slot[] = {0, 1, 2, 3}, hidden_slot[] = {0, 1, 2, 3};
  static constexpr bool has_cell = true, carries = false, reset_first = false;

  template <class V>
  static FASTRNN_FN void forward(const V* x, const V* p, V* kept, State<V>& state, const Unit& u = {}) {
    u.template gate<0, 0>(u.template peephole<0>(x[0] + p[0], state.c), kept);
    u.template gate<0, 1>(u.template peephole<1>(x[1] + p[1], state.c), kept);
    u.template gate<1, 2>(x[2] + p[2], kept);
    u.couple(kept);
    state.c = fma(kept[1], state.c, kept[0] * kept[2]);
    u.template gate<0, 3>(u.template peephole<2>(x[3] + p[3], state.c), kept);
    state.h = output(kept, state.c, u);
  }

  // h before a projection; backward computes it again instead of keeping it.
  template <class V> static FASTRNN_FN V output(const V* gate, V c, const Unit& u = {}) {
    return gate[3] * u.template value<2>(c);
  }

  template <class V>
  static FASTRNN_FN void backward(const V* kept, const State<V>& before, const State<V>& after, State<V>& d, V* slot,
                                  const Unit& u = {}) {
    const V i = kept[0], f = kept[1], g = kept[2], o = kept[3];
    V slope{};
    const V out = u.template value<2>(after.c, slope);
    slot[3] = u.template backward<0, 3>(kept, d.h * out);
    const V dc = u.template peephole<2>(fma(d.h * o, slope, d.c), slot[3]);
    V di = dc * g;
    const V df = dc * before.c;
    if (u.coupled()) di -= df;
    slot[0] = u.template backward<0, 0>(kept, di);
    slot[1] = u.template backward<0, 1>(kept, df);
    slot[2] = u.template backward<1, 2>(kept, dc * i);
    d.c = u.template peephole<1>(u.template peephole<0>(dc * f, slot[0]), slot[1]);
  }
};
using Lstm = LstmOf<Published<Sigmoid, Tanh, Tanh>>;

}  // namespace fastrnn::FASTRNN_ARCH

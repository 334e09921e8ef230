// r, z = logistic(.), h' = (1 - z) n + z h, and the candidate n either
//   Gru             n = tanh(W_in x + b_in + r (W_hn h + b_hn)), as cuDNN and Keras' reset_after=True have it, or
//   GruResetBefore  n = tanh(W_in x + b_in + W_hn (r h) + b_hn), as published (Cho et al., EMNLP 2014).
// Rows of the weights: r, z, n.
#pragma once

#include "functions.h"
#include "state.h"

namespace fastrnn::FASTRNN_ARCH {

template <class F> struct GruOf {
  using Functions = F;
  using Unit = typename F::Unit;
  // Beside the gates the tape keeps q = W_hn h + b_hn, at the end. Slots are dq, dr, dz, dn: the first three meet W_hh,
  // the last three W_ih, each in one run of memory.
  static constexpr int gates = 3, saved = F::kept(gates) + 1, slots = 4;
  static constexpr int input_slot[] = {1, 2, 3}, hidden_slot[] = {1, 2, 0};
  static constexpr bool has_cell = false, carries = true, reset_first = false;

  template <class V>
  static FASTRNN_FN void forward(const V* x, const V* p, V* kept, State<V>& state, const Unit& u = {}) {
    const V r = u.template gate<0, 0>(x[0] + p[0], kept);
    const V z = u.template gate<0, 1>(x[1] + p[1], kept);
    const V n = u.template gate<1, 2>(fma(r, p[2], x[2]), kept);
    kept[saved - 1] = p[2];
    state.h = fma(z, state.h - n, n);
  }

  template <class V>
  static FASTRNN_FN void backward(const V* kept, const State<V>& before, const State<V>&, State<V>& d, V* slot,
                                  const Unit& u = {}) {
    const V r = kept[0], z = kept[1], n = kept[2], q = kept[saved - 1];
    const V dn = u.template backward<1, 2>(kept, d.h * (1 - z));
    slot[0] = dn * r;
    slot[1] = u.template backward<0, 0>(kept, dn * q);
    slot[2] = u.template backward<0, 1>(kept, d.h * (before.h - n));
    slot[3] = dn;
    d.h = d.h * z;
  }
};
using Gru = GruOf<Published<Sigmoid, Tanh>>;

template <class F> struct GruResetBeforeOf {
  using Functions = F;
  using Unit = typename F::Unit;
  static constexpr int gates = 3, saved = F::kept(gates), slots = 3;
  static constexpr int input_slot[] = {0, 1, 2}, hidden_slot[] = {0, 1, 2};
  static constexpr bool has_cell = false, carries = true, reset_first = true;

  // First product: the gates r and z. Gives r h, what the second product starts from.
  template <class V> static FASTRNN_FN V forward_reset(const V* x, const V* p, V* kept, V h, const Unit& u = {}) {
    const V r = u.template gate<0, 0>(x[0] + p[0], kept);
    u.template gate<0, 1>(x[1] + p[1], kept);
    return r * h;
  }

  // Second product, p = W_hn (r h): gives h'.
  template <class V> static FASTRNN_FN V forward_mix(V x, V p, V* kept, V h, const Unit& u = {}) {
    const V z = kept[1], n = u.template gate<1, 2>(x + p, kept);
    return fma(z, h - n, n);
  }

  // Against the order of the forward step: slots 1 and 2 from dh', and what of it reaches h through z.
  template <class V> static FASTRNN_FN V backward_mix(const V* kept, V h, V dh, V* slot, const Unit& u = {}) {
    const V z = kept[1], n = kept[2];
    slot[1] = u.template backward<0, 1>(kept, dh * (h - n));
    slot[2] = u.template backward<1, 2>(kept, dh * (1 - z));
    return dh * z;
  }

  // Slot 0 from d(r h) = W_hn^T slot 2, and what of it reaches h through r h.
  template <class V> static FASTRNN_FN V backward_reset(const V* kept, V h, V d_rh, V* slot, const Unit& u = {}) {
    slot[0] = u.template backward<0, 0>(kept, d_rh * h);
    return d_rh * kept[0];
  }
};
using GruResetBefore = GruResetBeforeOf<Published<Sigmoid, Tanh>>;

}  // namespace fastrnn::FASTRNN_ARCH

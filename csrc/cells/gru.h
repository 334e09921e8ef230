// r, z = logistic(.), h' = (1 - z) n + z h, and the candidate n either
//   Gru             n = tanh(W_in x + b_in + r (W_hn h + b_hn)), as cuDNN and Keras' reset_after=True have it, or
//   GruResetBefore  n = tanh(W_in x + b_in + W_hn (r h) + b_hn), as published (Cho et al., EMNLP 2014).
// Rows of the weights: r, z, n.
#pragma once

#include "state.h"

namespace fastrnn::FASTRNN_ARCH {

struct Gru {
  // Beside r, z and n the tape keeps q = W_hn h + b_hn. Slots are dq, dr, dz, dn: the first three meet W_hh, the last
  // three W_ih, each in one run of memory.
  static constexpr int gates = 3, saved = 4, slots = 4;
  static constexpr int input_slot[] = {1, 2, 3}, hidden_slot[] = {1, 2, 0};
  static constexpr bool has_cell = false, carries = true, reset_first = false;

  template <class V> static FASTRNN_FN void forward(const V* x, const V* p, V* kept, State<V>& state) {
    const V r = kept[0] = sigmoid(x[0] + p[0]);
    const V z = kept[1] = sigmoid(x[1] + p[1]);
    const V n = kept[2] = tanh(fma(r, p[2], x[2]));
    kept[3] = p[2];
    state.h = fma(z, state.h - n, n);
  }

  template <class V>
  static FASTRNN_FN void backward(const V* kept, const State<V>& before, const State<V>&, State<V>& d, V* slot) {
    const V r = kept[0], z = kept[1], n = kept[2], q = kept[3];
    const V dn = d.h * (1 - z) * (1 - n * n);
    slot[0] = dn * r;
    slot[1] = dn * (q * (r * (1 - r)));
    slot[2] = d.h * (before.h - n) * (z * (1 - z));
    slot[3] = dn;
    d.h = d.h * z;
  }
};

struct GruResetBefore {
  static constexpr int gates = 3, saved = 3, slots = 3;
  static constexpr int input_slot[] = {0, 1, 2}, hidden_slot[] = {0, 1, 2};
  static constexpr bool has_cell = false, carries = true, reset_first = true;

  // First product: the gates r and z. Gives r h, what the second product starts from.
  template <class V> static FASTRNN_FN V forward_reset(const V* x, const V* p, V* kept, V h) {
    kept[0] = sigmoid(x[0] + p[0]);
    kept[1] = sigmoid(x[1] + p[1]);
    return kept[0] * h;
  }

  // Second product, p = W_hn (r h): gives h'.
  template <class V> static FASTRNN_FN V forward_mix(V x, V p, V* kept, V h) {
    const V z = kept[1], n = kept[2] = tanh(x + p);
    return fma(z, h - n, n);
  }

  // Against the order of the forward step: slots 1 and 2 from dh', and what of it reaches h through z.
  template <class V> static FASTRNN_FN V backward_mix(const V* kept, V h, V dh, V* slot) {
    const V z = kept[1], n = kept[2];
    slot[1] = dh * (h - n) * (z * (1 - z));
    slot[2] = dh * (1 - z) * (1 - n * n);
    return dh * z;
  }

  // Slot 0 from d(r h) = W_hn^T slot 2, and what of it reaches h through r h.
  template <class V> static FASTRNN_FN V backward_reset(const V* kept, V h, V d_rh, V* slot) {
    const V r = kept[0];
    slot[0] = d_rh * h * (r * (1 - r));
    return d_rh * r;
  }
};

}  // namespace fastrnn::FASTRNN_ARCH

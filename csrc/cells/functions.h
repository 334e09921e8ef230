// The functions that a cell applies to the sums of its gates, as published: fixed when the cell is compiled. chosen.h
// has those that a network's options name. Backward takes a function's slope from its value.
#pragma once

#include <cstdint>

namespace fastrnn::FASTRNN_ARCH {

struct Tanh {
  template <class V> static FASTRNN_FN V value(V x) { return tanh(x); }
  template <class V> static FASTRNN_FN V slope(V y) { return 1 - y * y; }
  template <class V> static FASTRNN_FN V backward(V y, V dy) { return dy * slope(y); }
};

struct Sigmoid {
  template <class V> static FASTRNN_FN V value(V x) { return sigmoid(x); }
  template <class V> static FASTRNN_FN V backward(V y, V dy) { return dy * (y * (1 - y)); }
};

struct Relu {
  template <class V> static FASTRNN_FN V value(V x) { return relu(x); }
  template <class V> static FASTRNN_FN V backward(V y, V dy) { return y <= V{} ? V{} : dy; }
};

template <int f, class First, class... Rest> struct Nth : Nth<f - 1, Rest...> {};
template <class First, class... Rest> struct Nth<0, First, Rest...> {
  using Type = First;
};

// What a cell is written against; `f` is the number of a function in the order of the cell's equations, i that of a
// gate.
//
//   gate<f, i>(a, kept)       kept[i] = f(a), and what backward needs of it
//   backward<f, i>(kept, dy)  the gradient of a, from that of kept[i]
//   value<f>(a)               of a function whose value is not kept,
//   value<f>(a, slope)        with its slope at a
//   peephole<i>(a, c)         a + w c, w the weight between c and gate i (in the order i, f, o of an LSTM)
//   couple(kept)              an LSTM's f = 1 - i, where
//   coupled()                 the network has it so
template <class... F> struct Published {
  template <int f> using Of = typename Nth<f, F...>::Type;
  static constexpr int count = sizeof...(F);
  static constexpr bool chosen = false;
  static constexpr int kept(int gates) { return gates; }  // values on the tape for so many gates

  // Of a vector of units there is nothing of its own.
  using Unit = Published;
  FASTRNN_FN Unit unit(int64_t) const { return {}; }

  template <int f, int i, class V> FASTRNN_FN V gate(V a, V* kept) const { return kept[i] = Of<f>::value(a); }
  template <int f, int i, class V> FASTRNN_FN V backward(const V* kept, V dy) const {
    return Of<f>::backward(kept[i], dy);
  }
  template <int f, class V> FASTRNN_FN V value(V a) const { return Of<f>::value(a); }
  template <int f, class V> FASTRNN_FN V value(V a, V& slope) const {
    const V y = Of<f>::value(a);
    slope = Of<f>::slope(y);
    return y;
  }
  template <int i, class V> FASTRNN_FN V peephole(V a, V) const { return a; }
  template <class V> FASTRNN_FN void couple(V*) const {}
  FASTRNN_FN bool coupled() const { return false; }
};

}  // namespace fastrnn::FASTRNN_ARCH

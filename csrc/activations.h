// tanh and the logistic function on vectors, from e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2 (Cody &
// Waite, Software Manual for the Elementary Functions, 1980).
//
// Both are within 2 ULP (units in the last place) of the exact value at every float, monotone, and exactly 0, 1 or -1
// where that is the nearest number; NaN stays NaN, -0 stays -0. Results below the least normal number are 0. What the
// errors come from is rounding: every sum below is written so that the larger term is exact or rounded once.
#pragma once

#include "simd.h"

namespace fastrnn::FASTRNN_ARCH {

// e^r - 1 = r + r^2 q(r). The float q has the least greatest error, 3e-9, that five terms can have; the double q
// interpolates at the Chebyshev nodes, with an error of 6e-19.
template <class V> struct ExpConstants;
template <> struct ExpConstants<VecF> {
  using T = float;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr T log2e = 1.44269504f, ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
  static constexpr T round = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr T limit = 88.0f;        // e^limit is finite, and 1 / e^limit less than the least normal number
  static constexpr T tanh_one = 9.1f;      // tanh rounds to 1 from here on
  static constexpr T q[] = {0.500000009541f, 0.166665186005f, 0.0416662050907f, 0.00836891806215f, 0.0013950538545f};
};
template <> struct ExpConstants<VecD> {
  using T = double;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr T log2e = 1.4426950408889634, ln2_high = 0.69314718036912382, ln2_low = 1.9082149292705877e-10;
  static constexpr T round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr T limit = 709.0;
  static constexpr T tanh_one = 19.1;
  static constexpr T q[] = {0.5,
                            0.16666666666666671008,
                            0.041666666666666669767,
                            0.0083333333333261120526,
                            0.0013888888888883731828,
                            0.00019841269874901259234,
                            0.000024801587325605322782,
                            2.7557255297969644392e-6,
                            2.7557273570102139673e-7,
                            2.5105259538448493419e-8,
                            2.0914717341716375952e-9};
};

template <class V> struct ExpParts {
  V scale;  // 2^n
  V part;   // e^r - 1
};

// Of e^-x, for |x| <= limit; NaN gives NaN in `part`.
template <class V> FASTRNN_FN ExpParts<V> exp_minus(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  using IntVec = typename Simd<T>::IntVec;
  const V shifted = fma(x, splat<T>(-C::log2e), splat<T>(C::round));
  const V n = shifted - C::round;
  V r = fma(n, splat<T>(-C::ln2_high), -x);
  r = fma(n, splat<T>(-C::ln2_low), r);
  constexpr int terms = sizeof(C::q) / sizeof(T);
  V q = splat<T>(C::q[terms - 1]);
#pragma GCC unroll 16
  for (int i = terms - 2; i >= 0; --i) q = fma(q, r, splat<T>(C::q[i]));
  // The low bits of `shifted` hold n; the shift drops the rest.
  const IntVec bits = (reinterpret_cast<IntVec>(shifted) + C::bias) << C::mantissa;
  return {reinterpret_cast<V>(bits), fma(r * r, q, r)};
}

// 1 / (1 + e^-x)
template <class V> FASTRNN_FN V sigmoid(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  const ExpParts<V> e = exp_minus(at_least(at_most(x, C::limit), -C::limit));
  // scale part + scale + 1, the smaller of the last two first: it would be rounded away with the larger.
  const V smaller = at_most(e.scale, T(1)), larger = at_least(e.scale, T(1));
  return T(1) / (fma(e.scale, e.part, smaller) + larger);
}

// (1 - e^-2t) / (1 + e^-2t) at t = |x|: 1 - e^-2t keeps its relative precision near 0, and no term cancels.
template <class V> FASTRNN_FN V tanh(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  using IntVec = typename Simd<T>::IntVec;
  const IntVec minus = reinterpret_cast<IntVec>(splat<T>(T(-0.0)));
  const V t = at_most(reinterpret_cast<V>(reinterpret_cast<IntVec>(x) & ~minus), C::tanh_one);
  const ExpParts<V> e = exp_minus(t + t);
  const V y = fma(e.scale, e.part, e.scale - T(1)) / fma(e.scale, e.part, e.scale + T(1));  // -tanh(t)
  return reinterpret_cast<V>((reinterpret_cast<IntVec>(y) & ~minus) | (reinterpret_cast<IntVec>(x) & minus));
}

// max(x, 0), keeping NaN
template <class V> FASTRNN_FN V relu(V x) { return x < V{} ? V{} : x; }

// e^x - 1 for x <= 0
template <class V> FASTRNN_FN V exp_minus_one(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  const ExpParts<V> e = exp_minus(-at_least(x, -C::limit));
  return fma(e.scale, e.part, e.scale - T(1));
}

// log(1 + e^x) = max(x, 0) + log(1 + u), u = e^-|x|, and log(1 + u) = 2 artanh(s) with s = u / (2 + u) <= 1/3, a series
// in s^2 whose terms fall below the rounding of the first after 8 for a float, 17 for a double.
template <class V> FASTRNN_FN V softplus(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  const ExpParts<V> e = exp_minus(at_most(x < V{} ? -x : x, C::limit));
  const V u = fma(e.scale, e.part, e.scale), s = u / (u + T(2)), square = s * s;
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;
  V sum = splat<T>(T(1) / (2 * terms - 1));
#pragma GCC unroll 17
  for (int k = terms - 1; k > 0; --k) sum = fma(sum, square, splat<T>(T(1) / (2 * k - 1)));
  return relu(x) + T(2) * s * sum;
}

}  // namespace fastrnn::FASTRNN_ARCH

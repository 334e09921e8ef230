// exp, tanh and the logistic function on vectors. NaN stays NaN; there is no overflow at any argument.
//
// exp(x) = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2 (Cody & Waite, Software Manual for the Elementary
// Functions, 1980). e^r - 1 = r + r^2 q(r); q interpolates at the Chebyshev nodes and leaves a relative error of
// 5.4e-10 (float) and 5.5e-19 (double), so that rounding, not the polynomial, sets the error of the results.
#pragma once

#include "simd.h"

namespace fastrnn::FASTRNN_ARCH {

template <class V> struct ExpConstants;
template <> struct ExpConstants<VecF> {
  using T = float;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr T log2e = 1.44269504f, ln2_high = 0.693145752f, ln2_low = 1.42860677e-6f;
  static constexpr T round = 12582912.0f;       // 1.5 * 2^23: adding it rounds to an integer in the low bits
  static constexpr T limit = 88.0f;  // e^limit is finite, and 1 / e^limit less than the least normal number
  static constexpr T tanh_one = 9.1f;           // tanh rounds to 1 from here on
  static constexpr T q[] = {0.5f, 0.16666667f, 0.041666463f, 0.0083333105f, 0.0013933686f, 0.00019891031f};
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

// For |x| <= limit; NaN gives NaN in `part`.
template <class V> FASTRNN_FN ExpParts<V> exp_parts(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  using IntVec = typename Simd<T>::IntVec;
  const V shifted = fma(x, splat<T>(C::log2e), splat<T>(C::round));
  const V n = shifted - C::round;
  V r = fma(n, splat<T>(-C::ln2_high), x);
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
  V y = -x;
  y = y > C::limit ? splat<typename C::T>(C::limit) : y;
  y = y < -C::limit ? splat<typename C::T>(-C::limit) : y;
  const ExpParts<V> e = exp_parts(y);
  return typename C::T(1) / (fma(e.scale, e.part, e.scale) + typename C::T(1));
}

// (e^2t - 1) / (e^2t + 1) at t = |x|: e^2t - 1 keeps its relative precision near 0, and no term cancels.
template <class V> FASTRNN_FN V tanh(V x) {
  using C = ExpConstants<V>;
  using T = typename C::T;
  using IntVec = typename Simd<T>::IntVec;
  const IntVec sign = reinterpret_cast<IntVec>(x) & reinterpret_cast<IntVec>(splat<T>(T(-0.0)));
  V t = reinterpret_cast<V>(reinterpret_cast<IntVec>(x) ^ sign);
  t = t > C::tanh_one ? splat<T>(C::tanh_one) : t;
  const ExpParts<V> e = exp_parts(t + t);
  const V expm1 = fma(e.scale, e.part, e.scale - T(1));
  const V y = expm1 / (expm1 + T(2));
  return reinterpret_cast<V>(reinterpret_cast<IntVec>(y) | sign);
}

// max(x, 0), keeping NaN
template <class V> FASTRNN_FN V relu(V x) { return x < V{} ? V{} : x; }

}  // namespace fastrnn::FASTRNN_ARCH

// The functions that a network's options name, looked up for each vector of units, with what else options change:
// clipped arguments, peepholes, coupled gates. Written against functions.h, on the CPU alone.
#pragma once

#include <limits>

#include "fastrnn.h"
#include "rows.h"

namespace fastrnn::FASTRNN_ARCH {

// A function of many shapes may have two slopes for one value: its slope is kept beside each gate.
template <class T, int Gates, int Functions> class Chosen {
  using V = Vec<T>;

 public:
  static constexpr int count = Functions;
  static constexpr bool chosen = true;
  static constexpr int kept(int gates) { return 2 * gates; }

  // `peepholes`: three rows of `stride` weights.
  Chosen(const Options& options, bool reverse, const T* peepholes, int64_t stride)
      : clip_(static_cast<T>(options.clip)), coupled_(options.coupled),
        peepholes_(options.peephole ? peepholes : nullptr), stride_(stride) {
    for (int f = 0; f < Functions; ++f) {
      const Activation& a = options.functions[reverse][f];
      const bool flat = a.function == Function::relu || a.function == Function::thresholded_relu ||
                        a.function == Function::hard_sigmoid;
      functions_[f] = {a.function, static_cast<T>(a.alpha), static_cast<T>(a.beta),
                       flat || options.coupled || options.clip <= std::numeric_limits<double>::max()};
    }
  }

  // What a vector of units has of it.
  class Unit {
   public:
    FASTRNN_FN Unit(const Chosen& all, int64_t unit)
        : all_(all), peepholes_(all.peepholes_ ? all.peepholes_ + unit : nullptr) {}

    template <int f, int i> FASTRNN_FN V gate(V a, V* kept) const {
      V slope{};
      const V y = value<f>(at_least(at_most(a, all_.clip_), -all_.clip_), slope);
      kept[Gates + i] = (a > all_.clip_) | (a < -all_.clip_) ? V{} : slope;
      return kept[i] = y;
    }
    // Where a function is flat by its definition nothing passes, were dy infinite or NaN.
    template <int f, int i> FASTRNN_FN V backward(const V* kept, V dy) const {
      const V slope = kept[Gates + i], da = dy * slope;
      if (!all_.functions_[f].flat) return da;
      return slope == V{} ? V{} : da;
    }
    template <int f> FASTRNN_FN V value(V a) const {
      V slope{};
      return value<f>(a, slope);
    }
    template <int f> FASTRNN_FN V value(V a, V& slope) const { return apply(all_.functions_[f], a, slope); }
    template <int i> FASTRNN_FN V peephole(V a, V c) const {
      return peepholes_ ? fma(load(peepholes_ + i * all_.stride_), c, a) : a;
    }
    FASTRNN_FN void couple(V* kept) const {
      if (coupled()) kept[1] = 1 - kept[0], kept[Gates + 1] = V{};
    }
    FASTRNN_FN bool coupled() const { return all_.coupled_; }

   private:
    const Chosen& all_;
    const T* peepholes_;
  };
  FASTRNN_FN Unit unit(int64_t unit) const { return {*this, unit}; }

 private:
  struct Scaled {
    Function function;
    T alpha, beta;
    bool flat;  // somewhere
  };

  // f(x), and its slope there. Not inlined: a step applies it to several gates.
  static V apply(const Scaled& f, V x, V& slope) {
    const V zero{}, one = splat<T>(1), alpha = splat<T>(f.alpha), beta = splat<T>(f.beta);
    V y;
    switch (f.function) {
      case Function::tanh:
        y = tanh(x);
        slope = one - y * y;
        return y;
      case Function::sigmoid:
        y = sigmoid(x);
        slope = y * (one - y);
        return y;
      case Function::relu:
        slope = x <= zero ? zero : one;
        return relu(x);
      case Function::affine:
        slope = alpha;
        return fma(alpha, x, beta);
      case Function::leaky_relu:
        slope = x < zero ? alpha : one;
        return x < zero ? alpha * x : x;
      case Function::thresholded_relu:
        slope = x <= alpha ? zero : one;
        return x <= alpha ? zero : x;
      case Function::scaled_tanh:
        y = tanh(beta * x);
        slope = alpha * beta * (one - y * y);
        return alpha * y;
      case Function::hard_sigmoid:
        y = fma(alpha, x, beta);
        slope = (y <= zero) | (y >= one) ? zero : alpha;
        return at_least(at_most(y, T(1)), T(0));
      case Function::elu:
        y = exp_minus_one(at_most(x, T(0)));
        slope = x < zero ? fma(alpha, y, alpha) : one;
        return x < zero ? alpha * y : x;
      case Function::softsign:
        y = one + (x < zero ? -x : x);
        slope = one / y;  // 0 where it would be denormal
        slope = slope * slope;
        return x / y;
      case Function::softplus:
        slope = sigmoid(x);
        return softplus(x);
    }
    return zero;  // unreachable: the enumeration is complete
  }

  Scaled functions_[Functions];
  T clip_;
  bool coupled_;
  const T* peepholes_;
  int64_t stride_;
};

}  // namespace fastrnn::FASTRNN_ARCH

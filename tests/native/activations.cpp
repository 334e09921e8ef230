// Holds tanh and sigmoid against the exact values at every float, or at every n-th, and at many doubles.
//
//     fastrnn_activations_ISA [n]     n = 1: all 2^32, in minutes
//
// Prints the greatest error in ULP (units in the last place of the exact value) and where it is. Fails if that is more
// than 2, where a function is not monotone, leaves its range, or loses NaN or -0.
#include "activations.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

using namespace fastrnn::FASTRNN_ARCH;

namespace {

struct Findings {
  double worst = 0;  // ULP
  double at = 0;
  long not_monotone = 0, out_of_range = 0, lost = 0;  // NaN or the sign of 0

  void add(const Findings& other) {
    if (other.worst > worst) worst = other.worst, at = other.at;
    not_monotone += other.not_monotone, out_of_range += other.out_of_range, lost += other.lost;
  }
};

struct Tanh {
  static constexpr const char* name = "tanh";
  static constexpr double low = -1;
  template <class V> static V value(V x) { return tanh(x); }
  template <class R> static R exact(R x) { return std::tanh(x); }
};
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static constexpr double low = 0;
  template <class V> static V value(V x) { return sigmoid(x); }
  template <class R> static R exact(R x) { return 1 / (1 + std::exp(-x)); }
};

// R is a type with more digits than T. Results below the least normal number count as 0.
template <class T, class R> double error_in_ulp(T value, R exact) {
  if (std::abs(exact) < static_cast<R>(std::numeric_limits<T>::min())) exact = 0;
  if (std::abs(value) < std::numeric_limits<T>::min()) value = 0;
  int exponent;
  std::frexp(std::max(std::abs(exact), static_cast<R>(std::numeric_limits<T>::min())), &exponent);
  return static_cast<double>(
      std::ldexp(std::abs(static_cast<R>(value) - exact), std::numeric_limits<T>::digits - exponent));
}

template <class Function, class T, class R> class Check {
 public:
  // Arguments of ascending bits, which go away from 0 on either side.
  void operator()(const T (&x)[lanes<T>]) {
    T y[lanes<T>];
    store(y, Function::value(load(x)));
    for (int i = 0; i < lanes<T>; ++i) one(x[i], y[i]);
  }
  Findings findings;

 private:
  void one(T x, T y) {
    if (std::isnan(x) || (x == 0 && Function::low < 0)) {
      findings.lost += std::isnan(x) != std::isnan(y) || (x == 0 && std::signbit(x) != std::signbit(y));
      return;
    }
    findings.out_of_range += !(y >= static_cast<T>(Function::low) && y <= 1);
    const double error = error_in_ulp<T, R>(y, Function::exact(static_cast<R>(x)));
    if (!(error <= findings.worst)) findings.worst = error, findings.at = static_cast<double>(x);
    if (std::signbit(x) == std::signbit(last_x_) && started_) {
      findings.not_monotone += std::signbit(x) ? y > last_y_ : y < last_y_;
    }
    last_x_ = x, last_y_ = y, started_ = true;
  }
  bool started_ = false;
  T last_x_ = 0, last_y_ = 0;
};

template <class Function, class T> bool passes(const Findings& f) {
  std::printf("%-8s %s: %.4f ULP at %.9g", Function::name, sizeof(T) == 4 ? "float " : "double", f.worst, f.at);
  if (f.not_monotone) std::printf(", not monotone at %ld", f.not_monotone);
  if (f.out_of_range) std::printf(", out of range at %ld", f.out_of_range);
  if (f.lost) std::printf(", NaN or -0 lost at %ld", f.lost);
  std::printf("\n");
  std::fflush(stdout);
  return f.worst <= 2 && !f.not_monotone && !f.out_of_range && !f.lost;
}

template <class Function> bool floats(uint64_t step) {
  const unsigned count = std::max(1u, std::thread::hardware_concurrency());
  std::vector<Findings> found(count);
  std::vector<std::thread> threads;
  for (unsigned part = 0; part < count; ++part) {
    threads.emplace_back([&, part] {
      Check<Function, float, double> check;
      constexpr uint64_t all = uint64_t{1} << 32;
      const uint64_t end = all * (part + 1) / count;
      float x[lanes<float>];
      for (uint64_t bits = all * part / count; bits < end;) {
        for (float& value : x) {
          const auto word = static_cast<uint32_t>(std::min(bits, end - 1));
          std::memcpy(&value, &word, sizeof value);
          bits += step;
        }
        check(x);
      }
      found[part] = check.findings;
    });
  }
  for (std::thread& thread : threads) thread.join();
  Findings total;
  for (const Findings& part : found) total.add(part);
  return passes<Function, float>(total);
}

// Evenly over the bits, which is evenly over the logarithm.
template <class Function> bool doubles() {
  Check<Function, double, long double> check;
  double x[lanes<double>];
  constexpr uint64_t step = 0x1p64 / 3e6;
  for (uint64_t bits = 0; bits < ~uint64_t{0} - 8 * step;) {
    for (double& value : x) {
      std::memcpy(&value, &bits, sizeof value);
      bits += step;
    }
    check(x);
  }
  return passes<Function, double>(check.findings);
}

}  // namespace

int main(int count, char** arguments) {
  const long step = count > 1 ? std::atol(arguments[1]) : 1;
  if (step < 1) {
    std::fprintf(stderr, "activations: the argument is to be 1 or more\n");
    return 2;
  }
  bool fine = floats<Tanh>(static_cast<uint64_t>(step));
  fine &= floats<Sigmoid>(static_cast<uint64_t>(step));
  fine &= doubles<Tanh>();
  fine &= doubles<Sigmoid>();
  return fine ? 0 : 1;
}

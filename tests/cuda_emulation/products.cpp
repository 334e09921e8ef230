// The emulator's products: plain loops with the same rounding as the device's, sums in float or double.
#include "products.h"

#include <cstdlib>

#include "values.cuh"

namespace fastrnn::cuda {
namespace {

template <class T, class Result, class Read = Computed<T> (*)(T)>
void multiply(const Product& p, Read read = [](T value) { return widen(value); }) {
  const auto a = [&](int64_t i, int64_t k) {
    return read(static_cast<const T*>(p.a.data)[p.a.transposed ? k * p.a.stride + i : i * p.a.stride + k]);
  };
  const auto b = [&](int64_t k, int64_t j) {
    return read(static_cast<const T*>(p.b.data)[p.b.transposed ? j * p.b.stride + k : k * p.b.stride + j]);
  };
  for (int64_t i = 0; i < p.m; ++i) {
    for (int64_t j = 0; j < p.n; ++j) {
      Result& c = static_cast<Result*>(p.c)[i * p.c_stride + j];
      Computed<T> sum = 0;
      for (int64_t k = 0; k < p.k; ++k) sum += a(i, k) * b(k, j);
      c = narrow<Result>(p.add ? widen(c) + sum : sum);
    }
  }
}

template <class T> void multiply_into(const Product& p) {
  if (p.result == p.factors) return multiply<T, T>(p);
  if (p.result == dtype_of<Computed<T>>) return multiply<T, Computed<T>>(p);
  std::abort();
}

}  // namespace

struct Products::Handle {
  bool tf32 = false;
};

Products::Products() : handle_(std::make_unique<Handle>()) {}
Products::~Products() = default;

size_t Products::workspace_bytes() { return 0; }

void Products::begin(Stream, std::byte*, bool tf32) { handle_->tf32 = tf32; }

void Products::operator()(const Product& p) {
  switch (p.factors) {
    case DType::float32:
      return handle_->tf32 ? multiply<float, float>(p, &round_to_tf32) : multiply_into<float>(p);
    case DType::float64:
      return multiply_into<double>(p);
    case DType::float16:
      return multiply_into<Half>(p);
    case DType::bfloat16:
      return multiply_into<BFloat16>(p);
  }
}

}  // namespace fastrnn::cuda

// The vector type that every kernel is written in, and what compilers' vector extensions leave out.
//
// Each instruction set compiles this text in a namespace of its own, FASTRNN_ARCH, so that the linker can never
// replace one variant's inline function by another's.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#ifndef FASTRNN_ARCH
#error "define FASTRNN_ARCH: the namespace of this instruction set"
#endif

// Cells are functions of values: an inlined SIMD vector here, a float in CUDA.
#define FASTRNN_FN inline __attribute__((always_inline))
#define FASTRNN_LAMBDA __attribute__((always_inline))

namespace fastrnn::FASTRNN_ARCH {

#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX2__)
inline constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
inline constexpr int vector_bytes = 16, vector_registers = 32;
#else
inline constexpr int vector_bytes = 16, vector_registers = 16;
#endif

template <class T> struct Simd;
template <> struct Simd<float> {
  typedef float Vec __attribute__((vector_size(vector_bytes)));
  typedef float Unaligned __attribute__((vector_size(vector_bytes), may_alias, aligned(4)));
  typedef uint32_t IntVec __attribute__((vector_size(vector_bytes)));
};
template <> struct Simd<double> {
  typedef double Vec __attribute__((vector_size(vector_bytes)));
  typedef double Unaligned __attribute__((vector_size(vector_bytes), may_alias, aligned(8)));
  typedef uint64_t IntVec __attribute__((vector_size(vector_bytes)));
};

template <class T> using Vec = typename Simd<T>::Vec;
template <class T> inline constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

using VecF = Vec<float>;
using VecD = Vec<double>;

template <class T> FASTRNN_FN Vec<T> splat(T value) { return value - Vec<T>{}; }  // x - 0 keeps -0
template <class T> FASTRNN_FN Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::Unaligned*>(p);
}
template <class T> FASTRNN_FN void store(T* p, Vec<T> v) { *reinterpret_cast<typename Simd<T>::Unaligned*>(p) = v; }

// To have in the cache what is needed soon.
FASTRNN_FN void fetch(const void* p) { __builtin_prefetch(p, 0, 3); }
FASTRNN_FN void fetch_for_later(const void* p) { __builtin_prefetch(p, 0, 2); }  // not into the nearest cache

// The first n lanes, 0 < n < lanes; nothing past them is touched. The other lanes read as zero.
FASTRNN_FN VecF load_first(const float* p, int n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
  VecF v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}
FASTRNN_FN VecD load_first(const double* p, int n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
#else
  VecD v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}
FASTRNN_FN void store_first(float* p, VecF v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}
FASTRNN_FN void store_first(double* p, VecD v, int n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), v);
#else
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// a * b + c. Contraction is off in these files, so what is fused is what is written: the bits cannot depend on how
// the compiler saw the surrounding loop.
FASTRNN_FN VecF fma(VecF a, VecF b, VecF c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
FASTRNN_FN VecD fma(VecD a, VecD b, VecD c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(__aarch64__)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

// c += a * b. In place: left to itself GCC moves sums of an unrolled loop between registers where few are free.
template <class T, bool in_place> FASTRNN_FN void add_product(Vec<T>& c, Vec<T> a, Vec<T> b) {
#if defined(__FMA__) && !defined(__AVX512F__)
  if constexpr (in_place && sizeof(T) == 4) {
    asm("vfmadd231ps %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    return;
  } else if constexpr (in_place) {
    asm("vfmadd231pd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    return;
  }
#endif
  c = fma(a, b, c);
}

// The lesser, or greater, of each lane and the limit; NaN stays NaN, which x86 takes from the second argument.
// (GCC 12 takes the plain AVX-512 forms for uses of what was never written.)
FASTRNN_FN VecF at_most(VecF v, float limit) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_ps(static_cast<__mmask16>(-1), splat(limit), v);
#elif defined(__AVX2__)
  return _mm256_min_ps(splat(limit), v);
#elif defined(__SSE2__)
  return _mm_min_ps(splat(limit), v);
#else
  return v > limit ? splat(limit) : v;
#endif
}
FASTRNN_FN VecD at_most(VecD v, double limit) {
#if defined(__AVX512F__)
  return _mm512_maskz_min_pd(static_cast<__mmask8>(-1), splat(limit), v);
#elif defined(__AVX2__)
  return _mm256_min_pd(splat(limit), v);
#elif defined(__SSE2__)
  return _mm_min_pd(splat(limit), v);
#else
  return v > limit ? splat(limit) : v;
#endif
}
FASTRNN_FN VecF at_least(VecF v, float limit) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(static_cast<__mmask16>(-1), splat(limit), v);
#elif defined(__AVX2__)
  return _mm256_max_ps(splat(limit), v);
#elif defined(__SSE2__)
  return _mm_max_ps(splat(limit), v);
#else
  return v < limit ? splat(limit) : v;
#endif
}
FASTRNN_FN VecD at_least(VecD v, double limit) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_pd(static_cast<__mmask8>(-1), splat(limit), v);
#elif defined(__AVX2__)
  return _mm256_max_pd(splat(limit), v);
#elif defined(__SSE2__)
  return _mm_max_pd(splat(limit), v);
#else
  return v < limit ? splat(limit) : v;
#endif
}

// The lower, or upper, halves of a and b, lane by lane in turns: a0 b0 a1 b1 ...
template <class T, bool upper, int... I>
FASTRNN_FN Vec<T> interleave(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
  constexpr int first = upper ? lanes<T> / 2 : 0;
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (first + I / 2 + (I % 2) * lanes<T>)...);
#else
  return __builtin_shuffle(a, b, typename Simd<T>::IntVec{(first + I / 2 + (I % 2) * lanes<T>)...});
#endif
}

// v as a square matrix, transposed: each round interleaves its first half with its second.
template <class T> FASTRNN_FN void transpose(Vec<T> (&v)[lanes<T>]) {
  constexpr int L = lanes<T>;
  constexpr auto all = std::make_integer_sequence<int, L>{};
#pragma GCC unroll 4
  for (int round = 1; round < L; round *= 2) {
    Vec<T> w[L];
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; ++i) {
      w[2 * i] = interleave<T, false>(v[i], v[i + L / 2], all);
      w[2 * i + 1] = interleave<T, true>(v[i], v[i + L / 2], all);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) v[i] = w[i];
  }
}

}  // namespace fastrnn::FASTRNN_ARCH

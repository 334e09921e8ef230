// The two 16-bit floating-point types: storage, and rounding from float to the nearest, ties to even. And TF32.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace emulation {

struct Half {  // IEEE 754 binary16
  uint16_t bits;
};
struct BFloat16 {  // the upper half of a float
  uint16_t bits;
};

inline float widen_half(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return std::copysign(std::ldexp(static_cast<float>(fraction), -24), sign ? -1.0f : 1.0f);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

inline uint16_t narrow_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);                // NaN
  if (size >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);               // from 65520 on: infinity
  if (size < 0x38800000u) {                                                            // below 2^-14: subnormal
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(std::fabs(value) * 0x1p24f)));
  }
  const uint32_t rebased = size - (112u << 23);
  return static_cast<uint16_t>(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13);
}

inline float widen_bfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t narrow_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// A float that TF32 has: the nearest, ties away from zero, as PTX has it for cvt.rna.
inline float round_to_tf32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (value != value) return std::bit_cast<float>(bits | 0x400000u);
  return std::bit_cast<float>((bits + 0x1000u) & ~0x1fffu);
}

}  // namespace emulation

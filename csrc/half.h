// Numbers of 16 bits, in memory: what converts them to float and back, to the nearest and ties to even.
#pragma once

#include <bit>
#include <cstdint>

namespace fastrnn {

struct Half {  // IEEE binary16: 1 sign bit, 5 of the exponent, 10 of the fraction
  uint16_t bits;
};
struct BFloat16 {  // the upper half of a float
  uint16_t bits;
};

inline float to_float(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

inline float to_float(Half value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16, rest = value.bits & 0x7fffu;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ff) << 13);  // infinity, NaN
  if (rest >= 0x0400) return std::bit_cast<float>(sign | (rest + ((127 - 15) << 10)) << 13);
  const float denormal = static_cast<float>(rest) * 0x1p-24f;
  return sign ? -denormal : denormal;
}

// `bits` without its lowest `count`, rounded.
inline uint32_t rounded_shift(uint32_t bits, int count) {
  const uint32_t half = (uint32_t{1} << (count - 1)) - 1;
  return (bits + half + ((bits >> count) & 1)) >> count;
}

inline BFloat16 to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(bits >> 16 | 0x40)};  // NaN stays one
  return {static_cast<uint16_t>(rounded_shift(bits, 16))};
}

inline Half to_half(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u, rest = bits & 0x7fffffffu;
  const auto with_sign = [&](uint32_t magnitude) { return Half{static_cast<uint16_t>(sign | magnitude)}; };
  if (rest > 0x7f800000u) return with_sign(0x7e00 | (rest >> 13 & 0x1ff));
  if (rest >= 0x477ff000u) return with_sign(0x7c00);  // 65520, half way beyond the largest, and more
  if (rest >= 0x38800000u) return with_sign(rounded_shift(rest - ((127 - 15) << 23), 13));
  if (rest < 0x33000000u) return with_sign(0);  // less than half of the smallest denormal
  const int exponent = static_cast<int>(rest >> 23);
  return with_sign(rounded_shift((rest & 0x7fffffu) | 0x800000u, 126 - exponent));
}

}  // namespace fastrnn

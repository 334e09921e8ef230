// The mode that the kernels compute in.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastrnn {

// The kernels' floating-point mode while it lives, whatever the caller's: to nearest, nothing traps, denormals count as
// zero (gates that have saturated would otherwise slow every product down).
class KernelMode {
 public:
#if defined(__x86_64__)
  KernelMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80 | 0x8040); }  // all masked; FTZ, DAZ
  ~KernelMode() { _mm_setcsr(saved_); }
  KernelMode(const KernelMode&) = delete;
  KernelMode& operator=(const KernelMode&) = delete;

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  KernelMode() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(uint64_t{1} << 24));  // FZ
  }
  ~KernelMode() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
  KernelMode(const KernelMode&) = delete;
  KernelMode& operator=(const KernelMode&) = delete;

 private:
  uint64_t saved_;
#endif
};

}  // namespace fastrnn

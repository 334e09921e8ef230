// Hands out parts of a block of memory; with no block it only counts. Builds with AddressSanitizer, which only the
// emulator has, put forbidden gaps between the parts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "red_zone.h"

#if defined(__CUDACC__)
#define FASTRNN_HOST_DEVICE __host__ __device__
#else
#define FASTRNN_HOST_DEVICE
#endif

namespace fastrnn::cuda {

class Carver {
 public:
  FASTRNN_HOST_DEVICE explicit Carver(std::byte* base, size_t alignment = 256) : base_(base), alignment_(alignment) {}

  template <class T> FASTRNN_HOST_DEVICE T* take(int64_t n) {
#if defined(__CUDA_ARCH__)
    std::byte* part = base_ + used_;  // nothing is only counted there, and loads are of shared memory without a doubt
#else
    std::byte* part = base_ ? base_ + used_ : nullptr;
#endif
    const size_t end = used_ + static_cast<size_t>(n) * sizeof(T);
    used_ = (end + red_zone + alignment_ - 1) / alignment_ * alignment_;
    if (base_) {
      FASTRNN_ALLOW(part, end - static_cast<size_t>(part - base_));
      FASTRNN_FORBID(base_ + end, used_ - end);
    }
    return reinterpret_cast<T*>(part);
  }
  FASTRNN_HOST_DEVICE size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0, alignment_;
};

}  // namespace fastrnn::cuda

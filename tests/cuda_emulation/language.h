// The kernel language for a C++ compiler: what nvcc knows without an include. Only what kernels here use.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "barriers.h"
#include "memory.h"
#include "warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline  // all in one function, a kernel takes twice as long to compile
#define __launch_bounds__(...)

#define threadIdx (::emulation::current->index)
#define blockIdx (::emulation::current->block_index)
#define blockDim (::emulation::grid->shape.block)
#define gridDim (::emulation::grid->shape.grid)

// Every call tells where it stands: that is how divergent barriers are found, and what a fault names.
#define EMULATION_WHERE ::emulation::Location where = ::emulation::Location::current()

inline void __syncthreads(EMULATION_WHERE) { emulation::block_barrier(where); }
inline int __syncthreads_or(int vote, EMULATION_WHERE) { return emulation::block_vote(vote != 0, where).any; }
inline int __syncthreads_and(int vote, EMULATION_WHERE) { return emulation::block_vote(vote != 0, where).all; }

inline void __syncwarp(unsigned mask = ~0u, EMULATION_WHERE) { emulation::sync_warp(mask, where); }
inline unsigned __ballot_sync(unsigned mask, int vote, EMULATION_WHERE) {
  return emulation::ballot(mask, vote != 0, where);
}
template <class T> T __shfl_sync(unsigned mask, T value, unsigned source, EMULATION_WHERE) {
  return emulation::shuffle(mask, value, source % 32, where);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, unsigned lanes, EMULATION_WHERE) {
  return emulation::shuffle(mask, value, emulation::current->lane ^ lanes, where);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned lanes, EMULATION_WHERE) {
  const unsigned source = emulation::current->lane + lanes;
  return emulation::shuffle(mask, value, source < 32 ? source : emulation::current->lane, where);
}

inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

template <class T> T __ldg(const T* p) {
  emulation::read_only_load(p, sizeof(T));
  return *p;
}

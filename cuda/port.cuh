// The only place where nvcc and the emulator of tests/cuda_emulation differ: each side gives, under the same names,
//
//   Half, BFloat16        storage types; widen(value) gives a float, round_into(to, value) takes one
//   shared_memory()       the block's dynamic shared memory
//   load_acquire, load_relaxed, store_release, add_release, spin_pause    flags between blocks
//   cluster_rank, cluster_size, cluster_barrier, in_block                 the blocks of a cluster, and their memory
//   copy_async, wait_for_copies    words from the device's memory into shared memory, by the thread that reads them
//   prefetch              a hint that something is about to be read
//   multiply_16x8x16, multiply_16x8x8, round_to_tf32                      tensor cores
//   launch                every launch of a kernel
//   clear                 zeros in the device's memory
//   SideStream            a second stream beside the caller's
//   current_device        what plan.h wants to know
//   device_name           of the current device; empty where there is none; current_device_number, device_of,
//                         set_current_device
//   allocate_on_device, free_on_device, copy_to_device, copy_from_device, order           what memory.h is made of
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "plan.h"

// The cells' functions are made for this namespace and forced inline.
#define FASTRNN_ARCH cuda
#define FASTRNN_FN __device__ __forceinline__

namespace fastrnn::cuda {

// Of a launch; blocks and threads lie along x.
struct Shape {
  unsigned blocks, threads;
  size_t shared_bytes = 0;
  unsigned cluster = 1;  // blocks in a cluster
  bool cooperative = false;
};

}  // namespace fastrnn::cuda

#if defined(__CUDACC__)
#include "port_nvcc.cuh"
#else
#include "port.h"
#endif

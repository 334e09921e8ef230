// The emulator's side of cuda/port.cuh: what stands there under the same names for nvcc.
#pragma once

#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <sstream>

#include "async_copy.h"
#include "half.h"
#include "language.h"

namespace fastrnn::cuda {

// ------------------------------------------------------------------------------------------------------------- values

using emulation::BFloat16;
using emulation::Half;

inline float widen(Half value) { return emulation::widen_half(value.bits); }
inline float widen(BFloat16 value) { return emulation::widen_bfloat16(value.bits); }
inline void round_into(Half& to, float value) { to.bits = emulation::narrow_half(value); }
inline void round_into(BFloat16& to, float value) { to.bits = emulation::narrow_bfloat16(value); }

// ------------------------------------------------------------------------------------------------------------- memory

inline std::byte* shared_memory() { return reinterpret_cast<std::byte*>(emulation::current->block->shared); }

inline uint32_t load_acquire(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
inline uint32_t load_relaxed(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
inline void store_release(uint32_t* p, uint32_t value) { __atomic_store_n(p, value, __ATOMIC_RELEASE); }
inline void add_release(uint32_t* p, uint32_t value) { __atomic_fetch_add(p, value, __ATOMIC_RELEASE); }
inline void spin_pause() { emulation::spin(); }

template <class T> void copy_async(T* to, const T* from) { emulation::copy_async(to, from); }
inline void wait_for_copies() { emulation::wait_for_copies(); }
inline void prefetch(const void*) {}

// ------------------------------------------------------------------------------------------------------------ cluster

inline unsigned cluster_rank() { return emulation::current->block->cluster_rank; }
inline unsigned cluster_size() { return emulation::grid->shape.cluster; }
inline void cluster_barrier(EMULATION_WHERE) { emulation::cluster_barrier(where); }
template <class T> T* in_block(T* own, unsigned rank) { return static_cast<T*>(emulation::map_shared(own, rank)); }

// ------------------------------------------------------------------------------------------------------- tensor cores

inline void multiply_16x8x16(Half, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATION_WHERE) {
  emulation::multiply_16x8x16(d, a, b, &emulation::widen_half, where);
}
inline void multiply_16x8x16(BFloat16, float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATION_WHERE) {
  emulation::multiply_16x8x16(d, a, b, &emulation::widen_bfloat16, where);
}

inline void multiply_16x8x8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMULATION_WHERE) {
  emulation::multiply_16x8x8(d, a, b, where);
}
inline float round_to_tf32(float value) { return emulation::round_to_tf32(value); }

// -------------------------------------------------------------------------------------------------------- host's side

template <class... P>
void launch(const Shape& shape, Stream, void (*kernel)(P...), const std::type_identity_t<P>&... arguments) {
  emulation::run({{shape.blocks, 1, 1}, {shape.threads, 1, 1}, shape.shared_bytes, shape.cluster, shape.cooperative},
                 [&] { kernel(arguments...); });
}

inline void clear(void* memory, size_t bytes, Stream) {
  if (bytes > 0) std::memset(memory, 0, bytes);
}

// An H100 of few SMs, and of small blocks: for each of their threads there is a fiber. Or what EMULATED_DEVICE in the
// environment says, by the numbers in Device.
inline Device current_device() {
  Device device{227 << 10, 8, 4, 64};
  if (const char* other = std::getenv("EMULATED_DEVICE")) {
    std::istringstream(other) >> device.shared_bytes >> device.processors >> device.cluster_blocks >>
        device.block_threads;
  }
  return device;
}

inline std::string device_name() { return "emulator"; }

inline int current_device_number() { return 0; }
inline void set_current_device(int) {}
inline int device_of(const void*) { return 0; }

inline void* allocate_on_device(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes ? bytes : 1)) throw std::bad_alloc();
  return memory;
}
inline void free_on_device(void* memory) { std::free(memory); }
inline void copy_to_device(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
inline void copy_from_device(void* to, const void* from, size_t bytes) { copy_to_device(to, from, bytes); }
inline void order(Stream, Stream) {}

// The kernels run before launch() returns: there is nothing to run beside them, and nothing to wait for.
class SideStream {
 public:
  Stream stream() const { return nullptr; }
  void fork(Stream) {}
  void join(Stream) {}
};

}  // namespace fastrnn::cuda

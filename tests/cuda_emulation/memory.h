// Shared memory, that of a cluster's other blocks, and loads through the read-only cache.
#pragma once

#include <cstddef>

namespace emulation {

char* take_shared(size_t bytes);  // filled with 0xff: NaN, -1
void forbid_shared(char*, size_t bytes);
void free_shared(char*, size_t bytes);

// Where the same shared variable of another block of the cluster lies.
void* map_shared(const void* own, unsigned rank);

// ld.global.nc: what is read so must not change while the kernel runs.
void read_only_load(const void* p, size_t bytes);
void check_read_only_loads();  // at the end of a launch

// memcpy that ThreadSanitizer does not see: what the emulator itself does is no part of the kernel.
inline void copy_unseen(void* to, const void* from, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) {
    static_cast<volatile char*>(to)[i] = static_cast<const volatile char*>(from)[i];
  }
}

}  // namespace emulation

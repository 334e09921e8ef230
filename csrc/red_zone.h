// Between the pieces of scratch memory, a build with AddressSanitizer has gaps that must not be touched. Other builds
// have none.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define FASTRNN_FORBID(begin, bytes) ASAN_POISON_MEMORY_REGION(begin, bytes)
#define FASTRNN_ALLOW(begin, bytes) ASAN_UNPOISON_MEMORY_REGION(begin, bytes)
#else
#define FASTRNN_FORBID(begin, bytes) static_cast<void>(begin)
#define FASTRNN_ALLOW(begin, bytes) static_cast<void>(begin)
#endif

namespace fastrnn {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr size_t red_zone = 64;  // bytes
#else
inline constexpr size_t red_zone = 0;
#endif

}  // namespace fastrnn

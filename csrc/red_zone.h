// Between the pieces of scratch memory, a build with AddressSanitizer has gaps that must not be touched. Other builds
// have none.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)  // GCC
#define FASTRNN_ASAN 1
#elif defined(__has_feature)  // Clang
#define FASTRNN_ASAN __has_feature(address_sanitizer)
#else
#define FASTRNN_ASAN 0
#endif

#if FASTRNN_ASAN
#include <sanitizer/asan_interface.h>
#define FASTRNN_FORBID(begin, bytes) ASAN_POISON_MEMORY_REGION(begin, bytes)
#define FASTRNN_ALLOW(begin, bytes) ASAN_UNPOISON_MEMORY_REGION(begin, bytes)
#else
#define FASTRNN_FORBID(begin, bytes) static_cast<void>(begin)
#define FASTRNN_ALLOW(begin, bytes) static_cast<void>(begin)
#endif

namespace fastrnn {

#if FASTRNN_ASAN
inline constexpr size_t red_zone = 64;  // bytes
#else
inline constexpr size_t red_zone = 0;
#endif

}  // namespace fastrnn

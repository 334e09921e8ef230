#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "scheduler.h"

#if defined(EMULATION_ADDRESS)
#include <sanitizer/asan_interface.h>
#endif

namespace emulation {
namespace {

struct ReadOnlyLoad {
  const char* from;
  size_t bytes;
  char value[16];
};
std::vector<ReadOnlyLoad> loads;

}  // namespace

char* take_shared(size_t bytes) {
  void* memory = nullptr;
  if (bytes == 0) return nullptr;
  if (posix_memalign(&memory, 128, bytes)) throw std::bad_alloc();
  // A memset would be seen by ThreadSanitizer as a write that races with the kernel's.
  for (size_t i = 0; i < bytes; ++i) static_cast<volatile char*>(memory)[i] = static_cast<char>(0xff);
  return static_cast<char*>(memory);
}

void forbid_shared([[maybe_unused]] char* memory, [[maybe_unused]] size_t bytes) {
#if defined(EMULATION_ADDRESS)
  __asan_poison_memory_region(memory, bytes);
#endif
}

void free_shared(char* memory, [[maybe_unused]] size_t bytes) {
#if defined(EMULATION_ADDRESS)
  __asan_unpoison_memory_region(memory, bytes);
#endif
  std::free(memory);
}

void* map_shared(const void* own, unsigned rank) {
  const Block& block = *current->block;
  const Block& other = *grid->blocks[block.cluster * grid->shape.cluster + rank];
  return other.shared + (static_cast<const char*>(own) - block.shared);
}

void read_only_load(const void* p, size_t bytes) {
  Thread& me = *current;
  wait(Thread::State::ready, [&] {
    ReadOnlyLoad load{static_cast<const char*>(p), std::min(bytes, sizeof(load.value)), {}};
    copy_unseen(load.value, p, load.bytes);
    loads.push_back(load);
    wake(me);
  });
}

void check_read_only_loads() {
  const bool changed = std::any_of(loads.begin(), loads.end(), [](const ReadOnlyLoad& load) {
    return std::memcmp(load.from, load.value, load.bytes) != 0;
  });
  loads.clear();
  if (changed && grid->fault.empty()) grid->fault = "__ldg of memory that the same launch wrote";
}

}  // namespace emulation

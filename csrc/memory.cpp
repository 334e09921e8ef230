// Memory for what the core keeps and hands out: tapes, packs, scratch and large results.
#include <sys/mman.h>

#include <atomic>
#include <new>
#include <vector>

#include "fastrnn.h"
#include "red_zone.h"

namespace fastrnn {
namespace {

constexpr size_t line = 64, large_page = size_t{2} << 20;

#if FASTRNN_ASAN
constexpr size_t recycled_bytes = 0;  // a block in use again would hide what still points into it
#else
constexpr size_t recycled_bytes = size_t{256} << 20;
#endif

// Large blocks that were given back, for the next call of much the same sizes: to have fresh pages cleared takes the
// system about as long as the kernels need to fill them. Whoever finds it busy goes to the system instead; so does
// a child that was forked at such a moment, for good.
class Recycler {
 public:
  // A block of at least `bytes`, which becomes its size; or null.
  std::byte* take(size_t& bytes) {
    if (busy_.test_and_set(std::memory_order_acquire)) return nullptr;
    auto best = blocks_.end();
    for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
      const bool fits = block->bytes >= bytes && block->bytes <= bytes + bytes / 4;
      if (fits && (best == blocks_.end() || block->bytes <= best->bytes)) best = block;
    }
    std::byte* found = nullptr;
    if (best != blocks_.end()) {
      found = best->data, bytes = best->bytes;
      total_ -= bytes;
      blocks_.erase(best);
    }
    busy_.clear(std::memory_order_release);
    return found;
  }

  // False: the caller frees it.
  bool keep(std::byte* data, size_t bytes) {
    if (bytes > recycled_bytes || busy_.test_and_set(std::memory_order_acquire)) return false;
    while (blocks_.size() == blocks_.capacity() || total_ + bytes > recycled_bytes) {
      total_ -= blocks_.front().bytes;
      release(blocks_.front().data);
      blocks_.erase(blocks_.begin());
    }
    blocks_.push_back({data, bytes});
    total_ += bytes;
    busy_.clear(std::memory_order_release);
    return true;
  }

  static void release(std::byte* data) { ::operator delete(data, std::align_val_t{large_page}); }

  Recycler() { blocks_.reserve(64); }

 private:
  struct Block {
    std::byte* data;
    size_t bytes;
  };
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::vector<Block> blocks_;  // the oldest first
  size_t total_ = 0;
};

Recycler& recycler = *new Recycler;  // never destroyed: results may outlive what main() leaves behind

}  // namespace

void Release::operator()(std::byte* data) const {
  if (bytes < 2 * large_page) {
    ::operator delete(data, std::align_val_t{line});
  } else if (!recycler.keep(data, bytes)) {
    Recycler::release(data);
  }
}

Memory allocate(size_t bytes) {
  if (bytes < 2 * large_page) {
    return Memory(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{line})), Release{bytes});
  }
  bytes = (bytes + large_page - 1) / large_page * large_page;
  if (std::byte* data = recycler.take(bytes)) return Memory(data, Release{bytes});
  Memory memory(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{large_page})), Release{bytes});
#if defined(MADV_HUGEPAGE)
  madvise(memory.get(), bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

}  // namespace fastrnn

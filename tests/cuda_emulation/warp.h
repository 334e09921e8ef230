// What the lanes of a warp do together. The last lane to come does it for all.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "scheduler.h"

namespace emulation {

// One lane's part in a call of its warp.
struct WarpCall {
  // Carries the call out: lanes[i] is lane i's part, null for lanes that have no part in it.
  using Action = void (*)(WarpCall* const (&lanes)[32]);
  Action action;
  unsigned mask;
  char* order = nullptr;  // for ThreadSanitizer: the lane's own,
  char* orders[32] = {};  // and those of all who took part
};

// `orders_memory` tells __syncwarp from shuffles and votes, which do not order memory.
void warp_call(WarpCall&, bool orders_memory, Location);

void lane_left(const Thread&);  // for the scheduler: a thread has returned; its warp does not wait for it any more

struct Shuffle : WarpCall {
  unsigned char value[16];
  unsigned bytes, source;
  static void act(WarpCall* const (&lanes)[32]);
};

// The value of lane `source`; bytes 0xff if that lane has no part in the call.
template <class T> T shuffle(unsigned mask, T value, unsigned source, Location where) {
  static_assert(sizeof(T) <= sizeof(Shuffle::value) && std::is_trivially_copyable_v<T>);
  Shuffle call{{&Shuffle::act, mask}, {}, sizeof(T), source};
  std::memcpy(call.value, &value, sizeof(T));
  warp_call(call, false, where);
  std::memcpy(&value, call.value, sizeof(T));
  return value;
}

unsigned ballot(unsigned mask, bool vote, Location);
void sync_warp(unsigned mask, Location);

// D (16, 8) += A (16, 16) B (16, 8) by a whole warp, 16-bit factors and float sums; which lane holds what is as PTX has
// it for mma.m16n8k16. `widen` makes a float of 16 bits.
void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float (*widen)(uint16_t),
                      Location);

// D (16, 8) += A (16, 8) B (8, 8), likewise, as PTX has it for mma.m16n8k8 in TF32: of the factors, which are floats,
// it takes no more bits than that type has.
void multiply_16x8x8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Location);

}  // namespace emulation

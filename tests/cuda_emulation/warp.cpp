#include "warp.h"

#include <bit>

#include "memory.h"

namespace emulation {
namespace {

// Carries a call out if all lanes of its mask are there that have not returned. A lane that is in another call will
// come when that one is over, or it is a deadlock.
void try_call(Block& block, unsigned first, unsigned mask, WarpCall::Action action) {
  WarpCall* lanes[32] = {};
  bool some = false;
  for (unsigned i = 0; i < 32 && first + i < block.threads.size(); ++i) {
    if (!(mask >> i & 1)) continue;
    const Thread& lane = block.threads[first + i];
    if (lane.state == Thread::State::done) continue;
    if (lane.state != Thread::State::in_warp_call) return;
    if (lane.call->mask != mask || lane.call->action != action) return;
    lanes[i] = lane.call;
    some = true;
  }
  if (!some) return;
  action(lanes);
  for (unsigned i = 0; i < 32; ++i) {
    if (!lanes[i]) continue;
    for (unsigned k = 0; k < 32; ++k) lanes[i]->orders[k] = lanes[k] ? lanes[k]->order : nullptr;
    wake(block.threads[first + i]);
  }
}

struct Vote : WarpCall {
  bool vote;
  unsigned result;
  static void act(WarpCall* const (&lanes)[32]) {
    unsigned result = 0;
    for (unsigned i = 0; i < 32; ++i) {
      if (lanes[i] && static_cast<Vote*>(lanes[i])->vote) result |= 1u << i;
    }
    for (WarpCall* lane : lanes) {
      if (lane) static_cast<Vote*>(lane)->result = result;
    }
  }
};

struct Meeting : WarpCall {
  static void act(WarpCall* const (&)[32]) {}
};

bool whole_warp(WarpCall* const (&lanes)[32], const char* what) {
  for (const WarpCall* lane : lanes) {
    if (!lane) {
      fault(std::string(what) + " needs all 32 lanes", Location::current());
      return false;
    }
  }
  return true;
}

uint16_t half_of(uint32_t pair, int which) { return static_cast<uint16_t>(which ? pair >> 16 : pair); }

// Lane l is in group l / 4 and the t-th of it, t = l mod 4. Of A it holds the rows group and group + 8, columns 2 t,
// 2 t + 1 and those 8 further; of B the rows 2 t, 2 t + 1 and those 8 further in column group; of D the rows group and
// group + 8, columns 2 t, 2 t + 1 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type").
struct MatrixProduct : WarpCall {
  uint32_t a[4], b[2];
  float d[4];
  float (*widen)(uint16_t);

  static void act(WarpCall* const (&lanes)[32]) {
    if (!whole_warp(lanes, "mma.sync")) return;
    float A[16][16], B[16][8];
    for (int l = 0; l < 32; ++l) {
      const auto& part = *static_cast<MatrixProduct*>(lanes[l]);
      const int group = l / 4, t = l % 4;
      for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 2; ++j) {
          A[group + 8 * (i % 2)][2 * t + j + 8 * (i / 2)] = part.widen(half_of(part.a[i], j));
        }
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 2; ++j) B[2 * t + j + 8 * i][group] = part.widen(half_of(part.b[i], j));
      }
    }
    for (int l = 0; l < 32; ++l) {
      auto& part = *static_cast<MatrixProduct*>(lanes[l]);
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
        for (int k = 0; k < 16; ++k) part.d[i] += A[row][k] * B[k][column];
      }
    }
  }
};

// Of A a lane holds the rows group and group + 8 in column t and then in column t + 4; of B the rows t and t + 4 in
// column group; of D the same as above (PTX ISA, "Matrix Fragments for mma.m16n8k8").
struct Tf32Product : WarpCall {
  uint32_t a[4], b[2];
  float d[4];

  static void act(WarpCall* const (&lanes)[32]) {
    if (!whole_warp(lanes, "mma.sync")) return;
    float A[16][8], B[8][8];
    for (int l = 0; l < 32; ++l) {
      const auto& part = *static_cast<Tf32Product*>(lanes[l]);
      const int group = l / 4, t = l % 4;
      for (int i = 0; i < 4; ++i) A[group + 8 * (i % 2)][t + 4 * (i / 2)] = shortened(part.a[i]);
      for (int i = 0; i < 2; ++i) B[t + 4 * i][group] = shortened(part.b[i]);
    }
    for (int l = 0; l < 32; ++l) {
      auto& part = *static_cast<Tf32Product*>(lanes[l]);
      for (int i = 0; i < 4; ++i) {
        const int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
        for (int k = 0; k < 8; ++k) part.d[i] += A[row][k] * B[k][column];
      }
    }
  }

 private:
  static float shortened(uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); }
};

}  // namespace

void warp_call(WarpCall& call, bool orders_memory, Location where) {
  Thread& me = *current;
  Block& block = *me.block;
  const unsigned first = me.number - me.lane, mask = call.mask;
  if (!(mask >> me.lane & 1)) {
    return wait(Thread::State::in_warp_call, [&] { fault("a lane that is not in its own mask", where); });
  }
  // In turns, so that a fast lane's next call is not ordered with this one.
  call.order = &me.warp_order[me.warp_calls++ % 2];
  me.where = where;
  me.call = &call;
  if (orders_memory) release(call.order);
  wait(Thread::State::in_warp_call, [&] { try_call(block, first, mask, call.action); });
  for (char* order : call.orders) {
    if (orders_memory && order) acquire(order);
  }
}

void lane_left(const Thread& thread) {
  Block& block = *thread.block;
  const unsigned first = thread.number - thread.lane;
  for (unsigned i = 0; i < 32 && first + i < block.threads.size(); ++i) {
    const Thread& other = block.threads[first + i];
    if (other.state == Thread::State::in_warp_call && other.call->mask >> thread.lane & 1) {
      return try_call(block, first, other.call->mask, other.call->action);
    }
  }
}

void Shuffle::act(WarpCall* const (&lanes)[32]) {
  Shuffle before[32];
  for (int i = 0; i < 32; ++i) {
    if (lanes[i]) before[i] = *static_cast<Shuffle*>(lanes[i]);
  }
  for (WarpCall* lane : lanes) {
    if (!lane) continue;
    auto& call = *static_cast<Shuffle*>(lane);
    if (call.source < 32 && lanes[call.source]) {
      copy_unseen(call.value, before[call.source].value, call.bytes);
    } else {
      for (unsigned k = 0; k < call.bytes; ++k) static_cast<volatile unsigned char*>(call.value)[k] = 0xff;
    }
  }
}

unsigned ballot(unsigned mask, bool vote, Location where) {
  Vote call{{&Vote::act, mask}, vote, 0};
  warp_call(call, false, where);
  return call.result;
}

void sync_warp(unsigned mask, Location where) {
  Meeting call{{&Meeting::act, mask}};
  warp_call(call, true, where);
}

void multiply_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float (*widen)(uint16_t),
                      Location where) {
  MatrixProduct call{{&MatrixProduct::act, ~0u}, {}, {}, {}, widen};
  std::memcpy(call.a, a, sizeof(a));
  std::memcpy(call.b, b, sizeof(b));
  std::memcpy(call.d, d, sizeof(d));
  warp_call(call, false, where);
  std::memcpy(d, call.d, sizeof(d));
}

void multiply_16x8x8(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Location where) {
  Tf32Product call{{&Tf32Product::act, ~0u}, {}, {}, {}};
  std::memcpy(call.a, a, sizeof(a));
  std::memcpy(call.b, b, sizeof(b));
  std::memcpy(call.d, d, sizeof(d));
  warp_call(call, false, where);
  std::memcpy(d, call.d, sizeof(d));
}

}  // namespace emulation

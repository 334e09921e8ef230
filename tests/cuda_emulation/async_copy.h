// cp.async: what a thread has copied, it finds after it has waited. The copies are made then, and not before, so that a
// missing wait shows; and by the thread itself, so that sanitizers see them.
#pragma once

#include "scheduler.h"

namespace emulation {

template <class T> void copy_async(T* to, const T* from) {
  const auto carry_out = [](void* a, const void* b) { *static_cast<T*>(a) = *static_cast<const T*>(b); };
  current->copies.push_back({carry_out, to, from});
}

inline void wait_for_copies() {
  for (const AsyncCopy& copy : current->copies) copy.carry_out(copy.to, copy.from);
  current->copies.clear();
}

}  // namespace emulation

// SPDX-License-Identifier: Apache-2.0
//
// How long work ends early: another thread sets a flag, and the work looks at it every few milliseconds or more often.
#pragma once

#include <atomic>
#include <stdexcept>

namespace qf {

using StopFlag = std::atomic<bool>;

// Throw when the work is to end.
inline void check_stop(const StopFlag& stop) {
    if (stop.load(std::memory_order_relaxed)) throw std::runtime_error("the evaluation was cancelled.");
}

}  // namespace qf

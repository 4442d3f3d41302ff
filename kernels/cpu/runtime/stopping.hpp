// SPDX-License-Identifier: Apache-2.0
//
// Early end of an evaluation: another thread sets a flag, and the sweeps check the flag at least every few
// milliseconds.
#pragma once

#include <atomic>
#include <stdexcept>

namespace qf {

using StopFlag = std::atomic<bool>;

// Throw std::runtime_error if the flag is set.
inline void check_stop(const StopFlag& stop) {
    if (stop.load(std::memory_order_relaxed)) throw std::runtime_error("the evaluation was cancelled.");
}

}  // namespace qf

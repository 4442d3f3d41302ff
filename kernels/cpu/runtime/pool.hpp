// SPDX-License-Identifier: Apache-2.0
//
// Threads that sleep between calls. Starting and ending a thread takes as long as the sweeps of a small batch.
#pragma once

#include <functional>
#include <memory>

namespace qf {

class Worker;

// A thread that does one job. The constructor wakes an idle thread, or starts a thread if none is idle. The destructor
// waits for the end of the job. The thread then sleeps in the pool; if the pool has as many threads as the machine has
// CPUs, the thread ends.
class PooledThread {
  public:
    // The job must not throw. The constructor throws std::system_error if no thread can be started.
    explicit PooledThread(std::function<void()> job);

    // Take the job back if the thread has not woken yet. Waking a thread takes up to 0.1 ms.
    void withdraw();

  private:
    struct Finish {
        void operator()(Worker* worker) const;
    };
    std::unique_ptr<Worker, Finish> worker_;
};

// Make the pool. The module makes it at import, so that a fork never happens while a thread makes the pool.
void make_pool();

}  // namespace qf

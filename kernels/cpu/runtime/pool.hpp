// SPDX-License-Identifier: Apache-2.0
//
// Threads that outlive a call: to start one and to end it takes as long as the sweeps of a small batch.
#pragma once

#include <functional>
#include <memory>

namespace qf {

class Worker;

// A thread for one job, woken where one is idle, else started. The destructor waits for the end of the job; the thread
// then sleeps until it is needed again, unless as many as there are CPUs do that already.
class PooledThread {
  public:
    // The job must not throw. Throws std::system_error where no thread can be started.
    explicit PooledThread(std::function<void()> job);

  private:
    struct Finish {
        void operator()(Worker* worker) const;
    };
    std::unique_ptr<Worker, Finish> worker_;
};

// Make what holds idle threads, so that no fork finds it half made.
void make_pool();

}  // namespace qf

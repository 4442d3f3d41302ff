// SPDX-License-Identifier: Apache-2.0
//
// Memory that is kept between calls. Plans and observables keep it on shelves of their own; all shelves of the process
// share one bound, and what was used least recently is freed first.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

namespace qf {

struct Kept {
    virtual ~Kept() = default;
    std::size_t bytes = 0;
};

class Shelf;

// The shelves of the process. Its mutex is locked across a fork, so that a child finds all of them as they should be:
// it is held while pointers move, never while an item is made, filled or freed.
class Shelves {
  public:
    static std::mutex& mutex();
    static std::size_t bytes();
    // Free the least recently used items until at most so many bytes are left, but no item that a call uses now. What
    // the allocator then holds goes back to the system where it is much.
    static void trim(std::size_t most_bytes);
    // Likewise, and give the system what the allocator holds.
    static void release(std::size_t most_bytes);

  private:
    friend class Shelf;
    struct Place {
        std::shared_ptr<Kept> item;
        Shelf* shelf;
    };
    using Places = std::list<Place>;  // the least recently used first
    struct State {
        std::mutex mutex;
        Places places;
        std::size_t bytes = 0;
    };
    static State& state();
};

// What one plan or one set of observables keeps.
class Shelf {
  public:
    Shelf() = default;
    Shelf(const Shelf&) = delete;
    Shelf& operator=(const Shelf&) = delete;
    ~Shelf() { clear(); }

    void put(std::shared_ptr<Kept> item);
    void clear();
    // The latest item of which fits(item) is true, or null; take removes it from the shelf.
    template <class Item, class F>
    std::shared_ptr<Item> find(F&& fits) {
        return std::static_pointer_cast<Item>(search(fits, false));
    }
    template <class Item, class F>
    std::shared_ptr<Item> take(F&& fits) {
        return std::static_pointer_cast<Item>(search(fits, true));
    }

  private:
    friend class Shelves;
    template <class F>
    std::shared_ptr<Kept> search(F& fits, bool remove) {
        const std::lock_guard<std::mutex> lock(Shelves::mutex());
        for (std::size_t i = places_.size(); i-- > 0;)
            if (fits(*places_[i]->item)) return remove ? removed(i) : touched(i);
        return nullptr;
    }
    std::shared_ptr<Kept> removed(std::size_t i);
    std::shared_ptr<Kept> touched(std::size_t i);

    std::vector<Shelves::Places::iterator> places_;  // the latest last
};

}  // namespace qf

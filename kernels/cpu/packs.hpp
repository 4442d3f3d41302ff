// SPDX-License-Identifier: Apache-2.0
//
// The memory of packs of rows (cpu/simd/packs.hpp): what a thread holds to evaluate one pack at a time, and what the
// packs of a call share. W is the number of rows of a pack.
#pragma once

#include <algorithm>
#include <array>
#include <complex>
#include <cstdint>
#include <cstring>
#include <vector>

#include "cpu/angles.hpp"
#include "cpu/plan.hpp"
#include "cpu/runtime/buffer.hpp"
#include "cpu/simd/packs.hpp"

namespace qf {

// Tables of phases that vary over rows are kept from the forward sweep to the backward sweep of a pack if the tables of
// all phases take at most this many bytes, a quarter of an L2 cache. Otherwise both sweeps make them.
constexpr std::size_t most_pack_tables = std::size_t(256) << 10;

// A call for gradients keeps the states psi of a pack before all phases, from the forward to the backward sweep, if
// they take at most this many bytes, three quarters of an L2 cache. Otherwise the backward sweep takes psi back with
// lam.
constexpr std::size_t most_pack_states = std::size_t(768) << 10;

// psi and lam of a pack go back in blocks if they take more than these bytes, the smallest L1 cache of a core with wide
// vectors. A block then takes at most half as many bytes, beside p and the table of the phase.
constexpr std::size_t most_cached_pack = std::size_t(32) << 10;

// Packs that differ from the first row in columns of their own share the tables of all phases. One set of columns
// serves all packs if these tables take more than this number of bytes.
constexpr std::size_t most_set_tables = std::size_t(1) << 20;

// The bound values of a pack, or of the row that stands for all rows.
template <class T>
struct PackBound {
    PackBound() = default;
    PackBound(const PlanData& plan, int width)
        : leaf(plan.leaves.size() * 2 * width),
          vector(has_vectors(plan) ? plan.leaves.size() * 7 * width : 0),
          run(plan.runs.size() * RUN_VALUES * width),
          left(plan.runs.size() * 2 * width),
          term(plan.terms.size() * 2 * width),
          shears(plan.runs.size() * 2 * width),
          sums_x(plan.runs.size()) {}

    static bool has_vectors(const PlanData& plan) {
        for (const auto& gate : plan.leaves)
            if (gate.kind == LEAF_RV) return true;
        return false;
    }
    static std::size_t bytes(const PlanData& plan, int width) {
        const std::size_t vectors = has_vectors(plan) ? 7 * plan.leaves.size() : 0;
        const std::size_t numbers =
            2 * plan.leaves.size() + vectors + (RUN_VALUES + 4) * plan.runs.size() + 2 * plan.terms.size();
        return width * numbers * sizeof(T) + plan.runs.size();
    }
    PackValues<T> view() {
        return {leaf.data(), vector.data(), run.data(), left.data(), term.data(), shears.data(), sums_x.data()};
    }
    void copy(const PackBound& other) {
        for_each_buffer(other, [](Buffer<T>& to, const Buffer<T>& from) {
            if (from.size()) std::memcpy(to.data(), from.data(), from.size() * sizeof(T));
        });
    }
    // Copy the values of a list of leaves, runs and terms.
    void copy(const PackBound& other, const BindList& list, std::size_t width) {
        auto copy = [&](Buffer<T>& to, const Buffer<T>& from, std::size_t index, std::size_t count) {
            if (from.size())
                std::copy_n(from.data() + index * count * width, count * width, to.data() + index * count * width);
        };
        for (const int i : list.leaves) copy(leaf, other.leaf, i, 2), copy(vector, other.vector, i, 7);
        for (const int r : list.runs) {
            copy(run, other.run, r, RUN_VALUES), copy(left, other.left, r, 2), copy(shears, other.shears, r, 2);
            sums_x[r] = other.sums_x[r];
        }
        for (const int t : list.terms) copy(term, other.term, t, 2);
    }
    // Give all rows of the pack the values of the first row of another pack, which has `from` rows.
    void fill(const PackBound<double>& other, std::size_t width, std::size_t from) {
        for_each_buffer(other, [&](Buffer<T>& to, const Buffer<double>& values) {
            for (std::size_t v = 0; v * width < to.size(); ++v)
                std::fill_n(to.data() + v * width, width, static_cast<T>(values[v * from]));
        });
    }
    // Call f(to, from) for each buffer of numbers and the same buffer of another pack, and copy sums_x.
    template <class S, class F>
    void for_each_buffer(const PackBound<S>& other, F&& f) {
        f(leaf, other.leaf);
        f(vector, other.vector);
        f(run, other.run);
        f(left, other.left);
        f(term, other.term);
        f(shears, other.shears);
        std::copy_n(other.sums_x.data(), sums_x.size(), sums_x.data());
    }

    Buffer<T> leaf, vector, run, left, term, shears;
    Buffer<char> sums_x;
};

// The rows of a pack, and the pairs of each row that share one backward sweep.
struct PackTurn {
    int first_row, count;                                 // the rows of the pack; count <= W
    std::array<std::int64_t, MOST_PACK_ROWS> begin, end;  // [count]: the pairs of each row
    // Return the row in place j. The places after the last row repeat it.
    int row(int j) const { return first_row + std::min(j, count - 1); }
    int most_pairs() const {
        std::int64_t most = 0;
        for (int j = 0; j < count; ++j) most = std::max(most, end[j] - begin[j]);
        return static_cast<int>(most);
    }
};

// Return one row of states [rows][2^bits] as real and imaginary parts.
template <class T>
T* row_of(std::complex<T>* states, int bits, std::int64_t row) {
    return reinterpret_cast<T*>(states + (row << bits));
}
inline const double* row_of(const std::complex<double>* states, int bits, std::int64_t row) {
    return reinterpret_cast<const double*>(states + (row << bits));
}

// What differs between the rows of some packs. Runs that are the same in all of these rows are rotated without their
// norms. The table of the phase after a layer takes in the norms of the layer, in the forward and in the backward
// sweep.
template <class T>
struct PackVariation {
    BindList varying;                        // the leaves, runs and terms that differ between rows
    std::vector<char> phase_varies;          // [phases]
    std::vector<int> phases;                 // the phases that vary
    std::vector<PackRotation<T>> rotations;  // [runs], without shears
    std::vector<char> is_shared;             // [runs]
    std::vector<int> group_end;  // [runs]: the end of the runs of the layer that one pass may rotate together
    std::vector<T>
        inverse2;         // [runs]: the inverse of the squared norms of the shared runs of the layer from this run on
    std::vector<T> norm;  // [phases]: the factor of the table, with its sign

    static std::size_t bytes(const PlanData& plan) {
        return plan.runs.size() * (sizeof(PackRotation<T>) + 1 + sizeof(int) + sizeof(T)) +
               (plan.num_layers + 1) * (sizeof(T) + sizeof(int));
    }
};

// Numbers that a pack needs later. The sweeps ask for some of them in each step, because a core waits if it asks for
// many at once. The rows of a pack are more streams than a core detects. The numbers are asked for in the L1 cache:
// they are still in the L2 cache when the pack needs them, and a core drops some requests for the L2 cache alone.
struct Ahead {
    static constexpr std::int64_t most = std::int64_t(8) << 10;  // doubles, 64 KiB
    const double* next = nullptr;
    std::int64_t left = 0, at_once = 0;

    Ahead() = default;
    Ahead(const double* numbers, std::int64_t count, std::int64_t steps)
        : next(numbers), left(std::min(count, most)), at_once(left / std::max<std::int64_t>(steps, 1) + 8) {}
    void fetch_some() {
        const double* const end = next + std::min(left, at_once);
        left -= end - next;
        for (; next < end; next += 8) __builtin_prefetch(next);
    }
};

// The number of elements in each array of a PackMemory.
struct PackSizes {
    int width = 0;
    std::size_t state = 0, num_psi = 0, num_lam = 0, num_saved = 0;  // T; the number of states of each kind
    std::size_t factors = 0, p = 0, weights = 0, diagonal = 0, run_sums = 0, z = 0, w = 0;  // T
    std::size_t angles = 0, ends = 0, gradient = 0, values = 0;                             // double
    std::size_t bound_bytes = 0, num_runs = 0;

    template <class T>
    std::size_t bytes() const {
        return num_runs * sizeof(PackRotation<T>) +
               (state * (num_psi + num_lam + num_saved) + factors + p + weights + diagonal + run_sums + z + w) *
                   sizeof(T) +
               bound_bytes + (angles + ends + gradient + values) * sizeof(double);
    }
};

template <class T>
struct PackMemory {
    PackMemory(const PlanData& plan, const PackSizes& sizes)
        : sizes(sizes),
          psi(sizes.state * sizes.num_psi),
          lam(sizes.state * sizes.num_lam),
          saved(sizes.state * sizes.num_saved),
          factors(sizes.factors),
          p(sizes.p),
          weights(sizes.weights),
          diagonal(sizes.diagonal),
          run_sums(sizes.run_sums),
          z(sizes.z),
          w(sizes.w),
          angles(sizes.angles),
          ends(sizes.ends),
          gradient(sizes.gradient),
          values(sizes.values),
          bound(plan, sizes.width),
          rotations(sizes.num_runs) {}

    // Say whether this memory of the same plan serves a call that needs these sizes.
    bool has(const PackSizes& needed) const {
        return sizes.state == needed.state && sizes.num_psi >= needed.num_psi && sizes.num_lam >= needed.num_lam &&
               sizes.num_saved + sizes.num_psi > needed.num_saved && sizes.values >= needed.values &&
               sizes.weights >= needed.weights;
    }

    T* psi_before(int k) const { return states + k * stride; }  // psi before phase k

    const PackSizes sizes;
    Buffer<T> psi;                    // the states before all phases, and the last state; or one state
    T* states = nullptr;              // psi before phase 0, in `psi` or in memory that a later call reads
    std::size_t stride = 0;           // from psi before a phase to psi before the next phase; 0: all in one place
    T* last = nullptr;                // the last state
    Buffer<T> lam, saved;             // saved: a copy of the last state, for the pairs of a row after the first
    Buffer<T> factors;                // [phases][n][2][W]: the factors of |1> of the phases that vary
    Buffer<T> p;                      // [2^n][W]: p of the amplitudes of one phase
    Buffer<T> weights;                // [1 or slots][W]
    Buffer<T> diagonal;               // [2][2^low_bits]: diagonals that are not stored
    Buffer<T> tables;                 // [num_tables][2^n][parts][W]
    Buffer<T> run_sums, z, w;         // [runs][2][W], [phases][n][W], [runs][3][W]
    Buffer<double> angles;            // [columns][W]
    Buffer<double> ends;              // [3][W]: the factor of psi in the final state (bind_states), Im<lam|psi>
    Buffer<double> gradient, values;  // [columns][W], [1 or slots][W]
    PackBound<T> bound;
    std::vector<PackRotation<T>> rotations;       // [runs]
    const PackVariation<T>* variation = nullptr;  // `own`, or what is common to all packs of a call with one set
    PackVariation<T> own;                         // what differs in the packs of a set
    int set = 0;                                  // the set of `variation`; -1: of none
    bool is_finite = true;                        // true: all columns that packs of the call have read are finite
    std::vector<double> scratch;                  // of fill_diagonal
    std::vector<std::int64_t> pair;               // [W]: the next pair of each row
    Ahead next_columns, gradients;                // the rows of the next pack, and the places of the gradients
};

// The values that packs of a call share: bound from the first row, and tables [2^n][parts] of the phases whose angles
// are the same in all rows of some pack. In shifted rows, which derivatives need, each pack differs from the first row
// in a few columns of its own.
template <class T>
struct PackShared {
    PackBound<T> bound;
    std::vector<Buffer<T>> tables;        // [phases]
    std::vector<char> column_varies;      // [columns]: 1 if some row differs from the first row
    std::vector<std::vector<char>> sets;  // [sets][columns]: 1 if some row of a pack differs from the first row
    std::vector<int> set_of;              // [packs]; neighbours with equal sets share one
    PackVariation<T> common;              // what differs in every pack
    bool is_finite = true;                // true: all columns of the first row are finite
    // Scratch memory to bind the first row in double precision: one pack whose rows are all this row.
    PackBound<double> exact;
    Buffer<double> exact_angles, exact_factors, exact_table, exact_constants, exact_signs;
};

}  // namespace qf

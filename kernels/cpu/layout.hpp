// SPDX-License-Identifier: Apache-2.0
//
// What an evaluation needs memory for, counted before anything is allocated. The engine allocates its buffers by the
// counts that are made here, and predict() adds the same counts up.
#pragma once

#include "cpu/phases.hpp"
#include "cpu/plan.hpp"

namespace qf {

constexpr index_t blocks_per_sum = 256;  // added up in the format of the amplitudes; longer sums lose digits in it

// Bytes of the last states of a call, and of what its rows share, that are kept for a call for gradients.
constexpr std::size_t most_finals = std::size_t(4) << 20;

// A batch, without its arrays.
struct BatchShape {
    std::int64_t rows = 1;
    std::int64_t values_per_row = 1;  // expectation values that one pass over a row's state gives at most
    int num_threads = 1;              // at most
    int num_states = 1;               // states psi that a row holds: one, or those of a schedule
    bool gradient = false, imaginary = false;
    bool saves_psi = false;     // a row has several pairs that go back one by one, from a copy of psi
    bool has_states = false;    // states come in, or cotangents of final states; or final states go out
    bool starts_given = false;  // rows bring their start states
};

struct Threading {  // of a batch
    int threads;
    int rows;  // that run side by side, each with states of its own
};

struct TableBytes {  // of the tables of some phases
    std::size_t all = 0, largest = 0;
};

// How many numbers the arrays of a workspace have.
struct WorkspaceSizes {
    int num_states = 0, num_threads = 0;
    std::size_t psi = 0, lam = 0, saved = 0;                                         // T
    std::size_t block = 0, low_sums = 0, diagonal = 0;                               // T, of each thread
    std::size_t reduce = 0;                                                          // double, of each thread
    std::size_t total = 0, linear = 0, cross = 0;                                    // double
    std::size_t run_sums = 0, z_sums = 0, pair_sums = 0, many_sums = 0, values = 0;  // double
    std::size_t w = 0;                                                               // vectors of three double
    std::size_t table_values = 0, table_strings = 0, table_base = 0;  // Complex, double, T: to make tables
    std::size_t layers = 0, phases = 0;
    std::size_t bound_bytes = 0;

    template <class T>
    std::size_t bytes() const;
};

struct Group {            // runs of one layer that one pass over the chunk rotates
    bool lanes, outside;  // outside: on chunk bits, needs chunks cut along other bits
    bool needs_x;         // some run has gates about more than one axis
    std::vector<int> runs;
};
using Groups = std::vector<std::vector<Group>>;  // by layer

template <class T>
class Layout {
  public:
    explicit Layout(const PlanData& plan);

    // Rows run side by side while there are enough of them and their states are small; else all threads share a row.
    Threading threading(std::int64_t rows, int num_threads) const;
    bool is_real(const BatchShape& shape) const;
    // From |0...0> the first table is not needed: the state after layer 0 is a product, and no adjoint visits phase 0.
    bool skips_first_phase(const BatchShape& shape) const;
    // Numbers of state `index` of a row, psi being 0 and lam 1. The four arrays of psi and lam start a quarter of a
    // page apart from each other modulo pages: rows of a group are powers of two apart, and all of them in one set of
    // the L1 cache would evict each other.
    std::size_t state_size(int index, bool real) const {
        return (std::size_t(real ? 1 : 2) << bits) + (2 * index + 1) * stagger;
    }
    WorkspaceSizes workspace(const BatchShape& shape, int num_threads) const;
    // Tables are made once for all rows where all of them take few bytes, and kept by each row where they take fewer.
    bool shares_tables(std::int64_t rows) const;
    bool rows_keep_tables() const;
    TableBytes tables_of(const std::vector<char>& phases, bool without_first) const;
    // Bytes of the last states of a call for values, 0 where they are not kept.
    std::size_t finals_bytes(const BatchShape& shape) const;
    std::size_t diagonals_bytes(std::size_t num_flips, std::size_t num_diagonals) const;
    // The bytes of an evaluation at its peak, but for the arrays of the caller. varying: the tables of phases that
    // differ between rows.
    std::size_t predict(const BatchShape& shape, TableBytes varying, std::size_t num_flips,
                        std::size_t num_diagonals) const;
    // The most bytes that tables which rows share and diagonals of so many terms add to a prediction without them.
    std::size_t most_shared_bytes(std::size_t num_terms) const;

    static constexpr std::size_t stagger = 1024 / sizeof(T);

    const PlanData& plan;
    const Sweeps<T>& sweeps;
    const int bits, low_bits, chunk_bits;
    const BindList everything;
    std::vector<int> layer_begin;   // of the runs of layer k
    Groups forward, adjoint, sums;  // of rotations, of their adjoints, and of the sums of states that stay
    std::vector<Phase> phases;      // without the tables that the engine keeps
    std::vector<std::size_t> pair_begin, many_begin;  // of the sums of phase k
    int max_variants = 1;
    std::size_t plan_bytes = 0;   // what the plan keeps: its records, phases and constant tables
    std::size_t bound_bytes = 0;  // the angles of one row

  private:
    Groups make_groups(int size, bool is_adjoint) const;

    std::vector<std::size_t> table_bytes_;  // of each phase
    std::size_t all_tables_ = 0;
    bool any_whole_ = false, any_linear_ = false;
    std::size_t most_cross_ = 0;
};

// Which phases have a run or a term of a list.
std::vector<char> phases_of(const PlanData& plan, const BindList& list);

}  // namespace qf

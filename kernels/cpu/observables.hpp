// SPDX-License-Identifier: Apache-2.0
//
// Observables: Pauli sums, with the terms that flip the same bits in one group, and the diagonals of the groups. Or the
// projectors onto the outcomes of a measurement, with the outcome of each amplitude.
//
// Equation: (O psi)[i] = sum over groups of d_x[i] psi[i ^ x].
// Layout: a diagonal d_x is two arrays re[2^n] and im[2^n]; an array is empty if all its numbers are 0.
// Equation of the projector onto outcome k: (P_k psi)[i] = [slots[i] == k + 1] psi[i]. Slot 0 belongs to no outcome.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/runtime/buffer.hpp"
#include "cpu/runtime/kept.hpp"
#include "cpu/runtime/stopping.hpp"
#include "cpu/simd/sweeps.hpp"

namespace qf {

// The summand (real + i imag) [(i & care) == value] (-1)^popcount(i & z) psi[i ^ x] of (O psi)[i].
struct ObservableTerm {
    index_t x, z, care, value;
    double real, imag;
};

template <class T>
struct DiagonalTables {  // [groups][2^n]
    std::vector<Buffer<T>> re, im;
    std::size_t bytes = 0;
};

template <class T>
struct Diagonals : Kept {
    std::vector<std::shared_ptr<const DiagonalTables<T>>> of;  // [observables]; null before its first evaluation
};

// Diagonals are stored if the state has at most 23 qubits and the diagonals of all groups that are not constant, one
// double for each amplitude and group, take at most 64 MiB. Otherwise each block computes its diagonals.
constexpr std::size_t most_diagonal_bytes = std::size_t(1) << 26;
constexpr int most_diagonal_qubits = 23;
inline bool stores_diagonals(int num_qubits, std::size_t num_groups) {
    return num_qubits <= most_diagonal_qubits && num_groups * (sizeof(double) << num_qubits) <= most_diagonal_bytes;
}

class Observables {
  public:
    // The terms of one observable that flip the same bits x.
    struct Group {
        index_t x = 0;
        bool has_real = false, has_imag = false;
        std::vector<ObservableTerm> terms;
        // Whether d_x is the same number for all amplitudes: the group is one string of X and I. It has no array.
        bool is_constant() const { return terms.size() == 1 && !terms[0].z && !terms[0].care; }
    };

    Observables(int num_qubits, std::vector<std::vector<ObservableTerm>> observables);
    // The projectors onto outcomes. outcome[2^num_qubits] is the outcome of each amplitude, or -1 for none.
    Observables(int num_qubits, int num_outcomes, const std::int32_t* outcome);
    int size() const { return size_; }
    // Return the slot of each amplitude, its outcome plus 1, for projectors onto outcomes. Else the array is empty.
    const std::vector<std::int32_t>& slots() const { return slots_; }
    const std::vector<Group>& groups(int observable) const { return groups_[observable]; }
    // Say whether all observables are real diagonals, which keep their values and lam under phases after all rotations.
    bool are_diagonal() const { return are_diagonal_; }
    // Return the diagonals that earlier calls have made, or null.
    template <class T>
    std::shared_ptr<const Diagonals<T>> find_tables();
    // Return the diagonals made before together with the diagonals of the observables marked in `observed`, and keep
    // them. Return null if diagonals are not stored. Throws when `stop` is set.
    template <class T>
    std::shared_ptr<const Diagonals<T>> make_tables(std::shared_ptr<const Diagonals<T>> made_before,
                                                    const std::vector<char>& observed, int padded_bits,
                                                    const StopFlag& stop);

  private:
    template <class T>
    Shelf& shelf();
    template <class T>
    std::shared_ptr<const DiagonalTables<T>> make(int observable, int padded_bits, const StopFlag& stop) const;

    int size_;
    bool store_tables_, are_diagonal_ = true;
    std::vector<std::vector<Group>> groups_;
    std::vector<std::int32_t> slots_;
    Shelf float_tables_, double_tables_;
};

// Replace values[m] by the sum over i of (-1)^popcount(i & m) values[i]. size is a power of two.
void walsh_hadamard(double* values, std::size_t size);

// Compute d_x over block h of 2^low_bits amplitudes, into re and im [2^low_bits]. Either may be null.
template <class T>
void fill_diagonal(const Observables::Group& group, index_t h, int low_bits, std::vector<double>& scratch, T* re,
                   T* im);

}  // namespace qf

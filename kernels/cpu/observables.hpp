// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "cpu/runtime/buffer.hpp"
#include "cpu/runtime/kept.hpp"
#include "cpu/runtime/stopping.hpp"
#include "cpu/simd/sweeps.hpp"

namespace qf {

struct ObservableTerm {  // (real + i imag) [(i & care) == value] (-1)^popcount(i & z) psi[i ^ x]
    index_t x, z, care, value;
    double real, imag;
};

template <class T>
struct DiagonalTables {  // per group [2^n]; empty where the part is zero
    std::vector<Buffer<T>> re, im;
    std::size_t bytes = 0;
};

template <class T>
struct Diagonals : Kept {  // null where an observable has not been asked for yet
    std::vector<std::shared_ptr<const DiagonalTables<T>>> of;
};

// The diagonals of observables are stored where those of all groups, in double precision, take few enough bytes; else
// they are made block by block.
constexpr std::size_t most_diagonal_bytes = std::size_t(1) << 26;
constexpr int most_diagonal_qubits = 23;
inline bool stores_diagonals(int num_qubits, std::size_t num_groups) {
    return num_qubits <= most_diagonal_qubits && num_groups * (sizeof(double) << num_qubits) <= most_diagonal_bytes;
}

class Observables {
  public:
    struct Group {  // the terms of one observable that share x
        index_t x = 0;
        bool has_real = false, has_imag = false;
        std::vector<ObservableTerm> terms;
    };

    Observables(int num_qubits, std::vector<std::vector<ObservableTerm>> observables);
    int size() const { return static_cast<int>(groups_.size()); }
    const std::vector<Group>& groups(int observable) const { return groups_[observable]; }
    // Diagonals that earlier calls have made, or null.
    template <class T>
    std::shared_ptr<const Diagonals<T>> find_tables();
    // These and those of further observables, which are kept; null where all of them would take too much memory.
    // Throws on `stop`.
    template <class T>
    std::shared_ptr<const Diagonals<T>> make_tables(std::shared_ptr<const Diagonals<T>> made_before,
                                                    const std::vector<char>& observed, int padded_bits,
                                                    const StopFlag& stop);

  private:
    template <class T>
    Shelf& shelf();
    template <class T>
    std::shared_ptr<const DiagonalTables<T>> make(int observable, int padded_bits, const StopFlag& stop) const;

    bool store_tables_;
    std::vector<std::vector<Group>> groups_;
    Shelf float_tables_, double_tables_;
};

// values[m] <- sum over i of (-1)^popcount(i & m) values[i], in place; size is a power of two.
void walsh_hadamard(double* values, std::size_t size);

// d_x over the block h of 2^low_bits amplitudes; re or im may be null.
template <class T>
void fill_diagonal(const Observables::Group& group, index_t h, int low_bits, std::vector<double>& scratch, T* re,
                   T* im);

}  // namespace qf

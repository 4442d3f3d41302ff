// SPDX-License-Identifier: Apache-2.0
//
// Pauli sums grouped by the bits they flip: (O psi)[i] = sum over groups of d_x[i] psi[i ^ x].
#include <algorithm>
#include <map>

#include "observables.hpp"

namespace qf {

void walsh_hadamard(double* values, std::size_t size) {
    for (std::size_t half = 1; half < size; half *= 2)
        for (std::size_t i = 0; i < size; i += 2 * half)
            for (std::size_t j = i; j < i + half; ++j) {
                const double a = values[j], b = values[j + half];
                values[j] = a + b;
                values[j + half] = a - b;
            }
}

Observables::Observables(int num_qubits, std::vector<std::vector<ObservableTerm>> observables) {
    std::size_t num_groups = 0;
    for (auto& terms : observables) {
        std::map<index_t, Group> by_flip;
        for (const auto& term : terms) {
            auto& group = by_flip[term.x];
            group.x = term.x;
            group.has_real = group.has_real || term.real != 0;
            group.has_imag = group.has_imag || term.imag != 0;
            group.terms.push_back(term);
        }
        groups_.emplace_back();
        for (auto& entry : by_flip) groups_.back().push_back(std::move(entry.second));
        num_groups += groups_.back().size();
    }
    float_tables_.resize(groups_.size());
    double_tables_.resize(groups_.size());
    constexpr std::size_t limit = std::size_t(1) << 26;  // bytes; beyond it diagonals are made block by block
    store_tables_ = num_qubits < 24 && num_groups * (sizeof(double) << num_qubits) <= limit;
}

template <class T>
void fill_diagonal(const Observables::Group& group, index_t h, int low_bits, std::vector<double>& scratch, T* re,
                   T* im) {
    const std::size_t size = std::size_t(1) << low_bits;
    const index_t mask = size - 1;
    for (int part = 0; part < 2; ++part) {
        T* out = part ? im : re;
        if (!out) continue;
        // Terms without projectors on low bits are a Walsh series in l; the others are added where they are not zero.
        scratch.assign(2 * size, 0.0);
        double *series = scratch.data(), *values = series + size;
        for (const auto& term : group.terms) {
            double c = part ? term.imag : term.real;
            if ((h & (term.care >> low_bits)) != term.value >> low_bits) continue;
            if (__builtin_parityll(h & (term.z >> low_bits))) c = -c;
            const index_t care = term.care & mask, value = term.value & mask, z = term.z & mask;
            if (!care) {
                series[z] += c;
                continue;
            }
            const index_t free = mask & ~care;
            for (index_t l = 0;; l = ((l | care) + 1) & free) {
                values[l | value] += __builtin_parityll((l | value) & z) ? -c : c;
                if (l == free) break;
            }
        }
        walsh_hadamard(series, size);
        for (std::size_t l = 0; l < size; ++l) out[l] = static_cast<T>(series[l] + values[l]);
    }
}

template <class T>
const DiagonalTables<T>* Observables::tables(int observable, int padded_bits, const StopFlag& stop) {
    if (!store_tables_) return nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& tables = table_store<T>()[observable];
    if (tables) return tables.get();
    auto made = std::make_unique<DiagonalTables<T>>();
    const int low_bits = std::min(padded_bits, max_low_bits);
    const std::size_t size = std::size_t(1) << low_bits;
    std::vector<double> scratch;
    for (const auto& group : groups_[observable]) {
        made->re.push_back(Buffer<T>(group.has_real ? std::size_t(1) << padded_bits : 0));
        made->im.push_back(Buffer<T>(group.has_imag ? std::size_t(1) << padded_bits : 0));
        for (index_t h = 0; h < index_t(1) << (padded_bits - low_bits); ++h) {
            check_stop(stop);
            fill_diagonal<T>(group, h, low_bits, scratch, group.has_real ? made->re.back().data() + h * size : nullptr,
                             group.has_imag ? made->im.back().data() + h * size : nullptr);
        }
    }
    return (tables = std::move(made)).get();
}

template <>
std::vector<std::unique_ptr<DiagonalTables<float>>>& Observables::table_store<float>() {
    return float_tables_;
}
template <>
std::vector<std::unique_ptr<DiagonalTables<double>>>& Observables::table_store<double>() {
    return double_tables_;
}
template const DiagonalTables<float>* Observables::tables<float>(int, int, const StopFlag&);
template const DiagonalTables<double>* Observables::tables<double>(int, int, const StopFlag&);
template void fill_diagonal<float>(const Observables::Group&, index_t, int, std::vector<double>&, float*, float*);
template void fill_diagonal<double>(const Observables::Group&, index_t, int, std::vector<double>&, double*, double*);

}  // namespace qf

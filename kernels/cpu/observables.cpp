// SPDX-License-Identifier: Apache-2.0
//
// Groups of Pauli terms that flip the same bits, and the diagonals of the groups.
#include <algorithm>
#include <map>

#include "cpu/observables.hpp"
#include "shared/masks.h"
#include "shared/tuning.h"

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

// A Walsh transform of 2^8 numbers takes as long as adding about 8 terms one by one.
constexpr std::size_t MOST_TERMS_ONE_BY_ONE = 8;

// values[l] += c (-1)^popcount(l & z) for all l below 2^bits. The signs are doubled bit by bit in scratch [2^bits].
inline void add_signs(double* values, double* scratch, int bits, index_t z, double c) {
    scratch[0] = c;
    for (int b = 0; b < bits; ++b) {
        const index_t half = index_t(1) << b;
        const double sign = z & half ? -1.0 : 1.0;
        for (index_t l = 0; l < half; ++l) scratch[half + l] = sign * scratch[l];
    }
    for (index_t l = 0; l < index_t(1) << bits; ++l) values[l] += scratch[l];
}

Observables::Observables(int num_qubits, std::vector<std::vector<ObservableTerm>> observables)
    : size_(static_cast<int>(observables.size())) {
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
        for (const auto& group : groups_.back()) {
            num_groups += !group.is_constant();
            are_diagonal_ = are_diagonal_ && group.x == 0 && !group.has_imag;
        }
    }
    store_tables_ = stores_diagonals(num_qubits, num_groups);
}

Observables::Observables(int num_qubits, int num_outcomes, const std::int32_t* outcome)
    : size_(num_outcomes), store_tables_(false) {
    // A state of few qubits is padded with amplitudes that are 0. They have slot 0.
    slots_.resize(std::size_t(1) << std::max(num_qubits, MAX_LOW_BITS));
    for (std::size_t i = 0; i < std::size_t(1) << num_qubits; ++i) slots_[i] = outcome[i] + 1;
}

template <class T>
void fill_diagonal(const Observables::Group& group, index_t h, int low_bits, std::vector<double>& scratch, T* re,
                   T* im) {
    const std::size_t size = std::size_t(1) << low_bits;
    const index_t mask = size - 1;
    for (int part = 0; part < 2; ++part) {
        T* out = part ? im : re;
        if (!out) continue;
        // Terms without projectors on low bits are summed as a Walsh series in l, or one by one if they are few. Each
        // of the other terms is added to the entries where it is not zero.
        const bool is_series = group.terms.size() > MOST_TERMS_ONE_BY_ONE;
        scratch.assign(2 * size, 0.0);
        double *series = scratch.data(), *values = series + size;
        for (const auto& term : group.terms) {
            double c = part ? term.imag : term.real;
            if ((h & (term.care >> low_bits)) != term.value >> low_bits) continue;
            if (parity(h & (term.z >> low_bits))) c = -c;
            const index_t care = term.care & mask, value = term.value & mask, z = term.z & mask;
            if (!care) {
                if (is_series)
                    series[z] += c;
                else
                    add_signs(values, series, low_bits, z, c);
                continue;
            }
            const index_t free = mask & ~care;
            for (index_t l = 0;; l = ((l | care) + 1) & free) {
                values[l | value] += parity((l | value) & z) ? -c : c;
                if (l == free) break;
            }
        }
        if (is_series) walsh_hadamard(series, size);
        for (std::size_t l = 0; l < size; ++l) out[l] = static_cast<T>(is_series ? series[l] + values[l] : values[l]);
    }
}

template <class T>
std::shared_ptr<const DiagonalTables<T>> Observables::make(int observable, int padded_bits,
                                                           const StopFlag& stop) const {
    auto made = std::make_shared<DiagonalTables<T>>();
    const int low_bits = std::min(padded_bits, MAX_LOW_BITS);
    const std::size_t size = std::size_t(1) << low_bits;
    std::vector<double> scratch;
    for (const auto& group : groups_[observable]) {
        const bool is_stored = !group.is_constant();
        made->re.push_back(Buffer<T>(is_stored && group.has_real ? std::size_t(1) << padded_bits : 0));
        made->im.push_back(Buffer<T>(is_stored && group.has_imag ? std::size_t(1) << padded_bits : 0));
        made->bytes += (made->re.back().size() + made->im.back().size()) * sizeof(T);
        for (index_t h = 0; is_stored && h < index_t(1) << (padded_bits - low_bits); ++h) {
            check_stop(stop);
            fill_diagonal<T>(group, h, low_bits, scratch, group.has_real ? made->re.back().data() + h * size : nullptr,
                             group.has_imag ? made->im.back().data() + h * size : nullptr);
        }
    }
    return made;
}

template <class T>
std::shared_ptr<const Diagonals<T>> Observables::find_tables() {
    return shelf<T>().template find<Diagonals<T>>([](const Kept&) { return true; });
}

template <class T>
std::shared_ptr<const Diagonals<T>> Observables::make_tables(std::shared_ptr<const Diagonals<T>> made_before,
                                                             const std::vector<char>& observed, int padded_bits,
                                                             const StopFlag& stop) {
    if (!store_tables_) return nullptr;
    std::shared_ptr<Diagonals<T>> all;
    for (std::size_t k = 0; k < observed.size(); ++k) {
        if (!observed[k] || (made_before && made_before->of[k])) continue;
        if (!all) all = made_before ? std::make_shared<Diagonals<T>>(*made_before) : std::make_shared<Diagonals<T>>();
        all->of.resize(observed.size());
        all->of[k] = make<T>(static_cast<int>(k), padded_bits, stop);
        all->bytes += all->of[k]->bytes;
    }
    if (!all) return made_before;
    shelf<T>().clear();
    shelf<T>().put(all);
    return all;
}

template <>
Shelf& Observables::shelf<float>() {
    return float_tables_;
}
template <>
Shelf& Observables::shelf<double>() {
    return double_tables_;
}
template std::shared_ptr<const Diagonals<float>> Observables::find_tables();
template std::shared_ptr<const Diagonals<double>> Observables::find_tables();
template std::shared_ptr<const Diagonals<float>> Observables::make_tables(std::shared_ptr<const Diagonals<float>>,
                                                                          const std::vector<char>&, int,
                                                                          const StopFlag&);
template std::shared_ptr<const Diagonals<double>> Observables::make_tables(std::shared_ptr<const Diagonals<double>>,
                                                                           const std::vector<char>&, int,
                                                                           const StopFlag&);
template void fill_diagonal<float>(const Observables::Group&, index_t, int, std::vector<double>&, float*, float*);
template void fill_diagonal<double>(const Observables::Group&, index_t, int, std::vector<double>&, double*, double*);

}  // namespace qf

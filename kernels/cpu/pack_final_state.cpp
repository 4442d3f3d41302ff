// SPDX-License-Identifier: Apache-2.0
//
// The two ends of the sweeps over a pack of rows: start states, values of observables, lam at the start of the backward
// sweep, and states that leave or enter. The steps are those of row_final_state.cpp.
#include "cpu/engine.hpp"

namespace qf {

// Fill the start state b_0, or b_1 from |0...0>, a product of real columns.
template <class T>
void Engine<T>::start_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn, int boundary) const {
    const int bits = plan_.num_qubits, width = packs_.width, parts = call.real ? 1 : 2;
    T* const psi = memory.psi_before(boundary);
    if (const auto* given = call.request.initial_states) {
        const double* rows[MOST_PACK_ROWS];
        for (int j = 0; j < width; ++j) rows[j] = row_of(given, bits, call.request.shared_start ? 0 : turn.row(j));
        return packs_.load_states(bits, parts, rows, nullptr, psi, nullptr, nullptr);
    }
    if (plan_.initial_re.empty()) {
        const int count = boundary > 0 && plan_.num_layers > 0 ? layer_begin_[1] : 0;
        return packs_.start(bits, parts, memory.rotations.data(), count, psi);
    }
    for (std::size_t i = 0; i < plan_.initial_re.size(); ++i)
        for (int part = 0; part < parts; ++part)
            std::fill_n(psi + (i * parts + part) * width, width,
                        static_cast<T>(part ? plan_.initial_im[i] : plan_.initial_re[i]));
}

// Copy psi to final_states, and set lam = G/2 from the cotangents G in final_cotangents (exchange_final_states).
template <class T>
void Engine<T>::exchange_final_states_of_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn) const {
    const Request& request = call.request;
    const int bits = plan_.num_qubits, width = packs_.width, parts = call.real ? 1 : 2;
    const AffinePhase& phase = left_phase(call);
    double constant = phase.constant;
    for (std::size_t k = call.zero_start ? 1 : 0; k < phases_.size(); ++k)
        if (pack_phases_[k]) constant = add_angle(constant, pack_phases_[k]->left);
    double *const factor = memory.ends.data(), *const overlap = factor + 2 * width;
    packs_.bind_states(phase.angles.data(), static_cast<int>(phase.angles.size()), constant, memory.angles.data(),
                       static_cast<int>(plan_.runs.size()), memory.bound.view(), factor);
    auto store = [&](auto function, auto* states) {
        decltype(row_of(states, bits, 0)) rows[MOST_PACK_ROWS] = {};
        for (int j = 0; states && j < turn.count; ++j) rows[j] = row_of(states, bits, turn.row(j));
        if (states) function(bits, parts, memory.last, factor, rows);
    };
    store(packs_.store_doubles, request.final_states);
    store(packs_.store_singles, request.single_states);
    if (!request.final_cotangents) return;
    const double* rows[MOST_PACK_ROWS];
    for (int j = 0; j < width; ++j) {
        rows[j] = row_of(request.final_cotangents, bits, turn.row(j));
        const double half = j < turn.count ? 0.5 : 0;  // sums over rows count no row twice
        factor[j] *= half;
        factor[width + j] *= -half;
    }
    packs_.load_states(bits, parts, rows, factor, memory.lam.data(), memory.last, overlap);
    // Z|0...0> = |0...0>, so all sums of p Z before layer 0 are Im<lam|psi>.
    if (call.has_z[0] && call.skip_first_adjoint)
        for (int i = 0; i < bits * width; ++i) memory.z[i] = static_cast<T>(overlap[i % width]);
}

// Compute the values of the pairs of a turn, and lam at the start of the backward sweep. The j-th pairs of all rows are
// observed together if they have the same observable; in general, once for each observable that occurs.
template <class T>
void Engine<T>::observe_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn) const {
    const Request& request = call.request;
    const int bits = plan_.num_qubits, width = packs_.width, parts = call.real ? 1 : 2;
    T* const lam = request.gradient ? memory.lam.data() : nullptr;
    bool accumulate = false;
    const int most = turn.most_pairs();
    std::array<bool, MOST_PACK_ROWS> matches, done;
    for (int p = 0; p < most; ++p) {
        done.fill(false);
        for (int first = 0; first < turn.count; ++first) {
            if (done[first] || turn.begin[first] + p >= turn.end[first]) continue;
            const int observable = request.pair_observable[turn.begin[first] + p];
            bool all = turn.count == width && !request.cotangents;
            if (lam) std::fill_n(memory.weights.data(), width, T(0));
            for (int j = 0; j < turn.count; ++j) {
                const std::int64_t pair = turn.begin[j] + p;
                matches[j] = pair < turn.end[j] && request.pair_observable[pair] == observable;
                all = all && matches[j];
                if (!matches[j]) continue;
                done[j] = true;
                if (lam) memory.weights[j] = static_cast<T>(request.cotangents ? request.cotangents[pair] : 1);
            }
            double* const value = memory.values.data();
            std::fill_n(value, width, 0.0);
            const auto& groups = call.observables.groups(observable);
            const auto* tables = call.diagonals ? call.diagonals->of[observable].get() : nullptr;
            for (std::size_t g = 0; g < groups.size(); ++g) {
                check_stop(request.progress->stop);
                const auto& group = groups[g];
                const bool has_imag = group.has_imag && !call.real;
                const T *d_re = nullptr, *d_im = nullptr;
                if (tables && !group.is_constant()) {
                    d_re = group.has_real ? tables->re[g].data() : nullptr;
                    d_im = has_imag ? tables->im[g].data() : nullptr;
                } else {
                    T *re = memory.diagonal.data(), *im = re + (std::size_t(1) << bits);
                    fill_diagonal(group, 0, bits, memory.scratch, group.has_real ? re : nullptr,
                                  has_imag ? im : nullptr);
                    d_re = group.has_real ? re : nullptr;
                    d_im = has_imag ? im : nullptr;
                }
                packs_.observe(bits, parts, group.x, d_re, d_im, memory.last, lam,
                               all ? nullptr : memory.weights.data(), accumulate, value);
                accumulate = true;
            }
            for (int j = 0; j < turn.count; ++j)
                if (matches[j]) request.values[turn.begin[j] + p] = value[j];
        }
    }
    if (lam && !accumulate) std::fill_n(lam, memory.lam.size(), T(0));
}

// The same for projectors onto outcomes: one pass over psi gives the values of all outcomes, and lam.
template <class T>
void Engine<T>::observe_pack_outcomes(Call& call, PackMemory<T>& memory, const PackTurn& turn) const {
    const Request& request = call.request;
    const int width = packs_.width;
    const std::size_t num_slots = static_cast<std::size_t>(call.observables.size()) + 1;
    std::fill_n(memory.values.data(), num_slots * width, 0.0);
    if (request.gradient) {
        std::fill_n(memory.weights.data(), num_slots * width, T(0));
        for (int j = 0; j < turn.count; ++j)
            for (std::int64_t pair = turn.begin[j]; pair < turn.end[j]; ++pair)
                memory.weights[(request.pair_observable[pair] + 1) * width + j] =
                    static_cast<T>(request.cotangents ? request.cotangents[pair] : 1);
    }
    packs_.observe_outcomes(plan_.num_qubits, call.real ? 1 : 2, call.observables.slots().data(), memory.last,
                            request.gradient ? memory.lam.data() : nullptr, memory.weights.data(),
                            memory.values.data());
    for (int j = 0; j < turn.count; ++j)
        for (std::int64_t pair = turn.begin[j]; pair < turn.end[j]; ++pair)
            request.values[pair] = memory.values[(request.pair_observable[pair] + 1) * width + j];
}

#define QF_INSTANTIATE(T)                                                                                 \
    template void Engine<T>::start_pack(Call&, PackMemory<T>&, const PackTurn&, int) const;               \
    template void Engine<T>::exchange_final_states_of_pack(Call&, PackMemory<T>&, const PackTurn&) const; \
    template void Engine<T>::observe_pack(Call&, PackMemory<T>&, const PackTurn&) const;                  \
    template void Engine<T>::observe_pack_outcomes(Call&, PackMemory<T>&, const PackTurn&) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

// SPDX-License-Identifier: Apache-2.0
//
// The final state of a row: values of observables, lam at the start of the backward sweep, and states that leave the
// engine or enter it.
#include <numeric>

#include "cpu/engine.hpp"

namespace qf {

template <class T>
double Engine<T>::observe(Call& call, Workspace& ws, Member& member, int observable, bool with_lam, State psi,
                          index_t begin, index_t end) const {
    const State lam = with_lam ? view(ws.lam, ws.real) : State{};
    const auto& groups = call.observables.groups(observable);
    const auto* tables = call.diagonals ? call.diagonals->of[observable].get() : nullptr;
    double value = 0;
    if (groups.empty() && with_lam) {
        std::fill(lam.re + begin, lam.re + end, T(0));
        if (lam.im) std::fill(lam.im + begin, lam.im + end, T(0));
    }
    // The groups that one pass takes: the constant ones, and those whose diagonals are stored.
    auto& together = member.groups;
    together.clear();
    for (std::size_t g = 0; g < groups.size(); ++g) {
        const auto& group = groups[g];
        if (group.is_constant()) {
            const auto& term = group.terms[0];
            together.push_back({group.x, nullptr, nullptr, T(term.real), psi.im ? T(term.imag) : T(0)});
        } else if (tables) {
            together.push_back({group.x, group.has_real ? tables->re[g].data() + begin : nullptr,
                                group.has_imag && psi.im ? tables->im[g].data() + begin : nullptr, 0, 0});
        }
    }
    check_stop(call.request.progress->stop);
    if (!together.empty())
        value += sweeps_.observe(begin, end, together.data(), together.size(), psi.re, psi.im, lam.re, lam.im, false);
    const index_t block = index_t(1) << low_bits_;
    for (index_t i = begin; together.size() < groups.size() && i < end; i += block) {
        check_stop(call.request.progress->stop);
        bool accumulate = !together.empty();
        for (const auto& group : groups) {
            if (group.is_constant()) continue;
            T* d_re = group.has_real ? member.diagonal.data() : nullptr;
            T* d_im = group.has_imag && psi.im ? member.diagonal.data() + block : nullptr;
            fill_diagonal(group, i >> low_bits_, low_bits_, member.reduce, d_re, d_im);
            const FlipGroup<T> made{group.x, d_re, d_im, 0, 0};
            value += sweeps_.observe(i, i + block, &made, 1, psi.re, psi.im, lam.re, lam.im, accumulate);
            accumulate = true;
        }
    }
    // With i lam instead of lam, the same sums give 2 Im<psi|O|d psi>, because Im<i lam|P|psi> = -Re<lam|P|psi>.
    if (with_lam && call.request.imaginary)
        for (index_t i = begin; i < end; ++i) {
            const T old = lam.re[i];
            lam.re[i] = -lam.im[i];
            lam.im[i] = old;
        }
    return value;
}

// Return the part of one chunk in the value of a pair. For gradients, also set lam = O psi over the chunk. With
// cotangents, set lam = weight O psi, or add to lam if `accumulate` is true.
template <class T>
double Engine<T>::observe_pair(Call& call, Workspace& ws, Member& member, std::int64_t pair, bool accumulate, State psi,
                               int chunk) const {
    const Request& request = call.request;
    const int observable = request.pair_observable[pair];
    const index_t size = index_t(1) << (bits_ - chunk_bits_), begin = chunk * size;
    if (!request.gradient || !request.cotangents)
        return observe(call, ws, member, observable, request.gradient, psi, begin, begin + size);
    const T weight = static_cast<T>(request.cotangents[pair]);
    const index_t block = index_t(1) << low_bits_;
    T* const before = member.block.data();
    const State whole = view(ws.lam, ws.real);
    const int parts = whole.im ? 2 : 1;
    double value = 0;
    // One block at a time fits the L1 cache: O psi replaces lam, and the saved block of lam is then added.
    for (index_t i = begin; i < begin + size; i += block) {
        T* const lam[2] = {whole.re + i, whole.im ? whole.im + i : nullptr};
        std::fill_n(before, 2 * block, T(0));
        for (int part = 0; accumulate && part < parts; ++part) std::copy_n(lam[part], block, before + part * block);
        value += observe(call, ws, member, observable, true, psi, i, i + block);
        for (int part = 0; part < parts; ++part)
            for (index_t l = 0; l < block; ++l) lam[part][l] = before[part * block + l] + weight * lam[part][l];
    }
    return value;
}

// Return the phase that tables leave out of the final states of a call.
template <class T>
const AffinePhase& Engine<T>::left_phase(const Call& call) const {
    const bool without_first = call.request.actions ? call.skip_first_adjoint : call.zero_start;
    return without_first ? layout_.phase_without_first : layout_.phase_of_all;
}

// Copy psi to final_states, and set lam = G/2 from the cotangents G in final_cotangents, if the caller passes these
// arrays. Both have the global phase of traceless gates. With from_end, take this phase off psi instead.
template <class T>
void Engine<T>::exchange_final_states(Call& call, Workspace& ws, Team& team, int thread, int row, State psi) const {
    const Request& request = call.request;
    const std::size_t size = std::size_t(1) << plan_.num_qubits, first = static_cast<std::size_t>(row) * size;
    const std::size_t length = std::size_t(1) << (bits_ - chunk_bits_);
    for_each_chunk(call, team, thread, [&](int chunk) {
        const std::size_t begin = chunk * length, end = std::min(begin + length, size);
        for (std::size_t i = begin; request.from_end && i < end; ++i) {  // psi is the final state of the caller
            const Complex amplitude = conj(ws.factor) * Complex{psi.re[i], psi.im[i]};
            psi.re[i] = static_cast<T>(amplitude.re);
            psi.im[i] = static_cast<T>(amplitude.im);
        }
        auto store = [&](auto* states) {
            for (std::size_t i = begin; states && i < end; ++i) {
                const Complex amplitude = ws.factor * Complex{psi.re[i], psi.im ? psi.im[i] : 0};
                states[first + i] = std::complex<double>(amplitude.re, amplitude.im);
            }
        };
        if (!request.from_end) store(request.final_states), store(request.single_states);
        if (!request.final_cotangents) return;
        const State lam = view(ws.lam, ws.real);
        const Complex half = 0.5 * conj(ws.factor);
        double overlap = 0;
        for (std::size_t i = begin; i < begin + length; ++i) {
            const std::complex<double> given = i < end ? request.final_cotangents[first + i] : 0;
            const Complex cotangent = half * Complex{given.real(), given.imag()};
            lam.re[i] = static_cast<T>(cotangent.re);
            if (!lam.im) continue;
            lam.im[i] = static_cast<T>(cotangent.im);
            overlap += cotangent.re * psi.im[i] - cotangent.im * psi.re[i];
        }
        ws.overlaps[chunk] = overlap;
    });
    if (!request.final_cotangents) return;
    team.barrier();
    if (thread == 0) ws.overlap = std::accumulate(ws.overlaps.begin(), ws.overlaps.end(), 0.0);
}

// Compute the values of the pairs that share one backward sweep, and lam at the start of this sweep.
template <class T>
void Engine<T>::observe_pairs(Call& call, Workspace& ws, Team& team, int thread, int row, std::int64_t first,
                              std::int64_t count, State psi) const {
    team.barrier();  // after this barrier, psi is complete
    if (call.request.has_ends()) exchange_final_states(call, ws, team, thread, row, psi);
    if (count > 0 && !call.observables.slots().empty())
        return observe_outcomes(call, ws, team, thread, first, count, psi);
    for (std::int64_t p = 0; p < count; ++p)
        for_each_chunk(call, team, thread, [&](int chunk) {
            ws.values[chunk * count + p] = observe_pair(call, ws, ws.members[thread], first + p, p > 0, psi, chunk);
        });
    team.barrier();
    if (thread != 0) return;
    double* values = call.request.values + first;
    std::fill_n(values, count, 0.0);
    for (std::int64_t i = 0; i < num_chunks() * count; ++i) values[i % count] += ws.values[i];
}

// The same as observe_pairs() for projectors onto outcomes, whatever their number: one pass over psi adds up the
// probabilities of all outcomes, and one pass sets lam = sum over the pairs of weight * P psi.
template <class T>
void Engine<T>::observe_outcomes(Call& call, Workspace& ws, Team& team, int thread, std::int64_t first,
                                 std::int64_t count, State psi) const {
    const Request& request = call.request;
    const std::int32_t* slots = call.observables.slots().data();
    const std::size_t num_slots = static_cast<std::size_t>(call.observables.size()) + 1;
    const int parts = layout_.outcome_parts(call.observables.size());
    if (thread == 0) {
        ws.values.assign(parts * num_slots, 0.0);
        ws.weights.assign(num_slots, 0.0);
        for (std::int64_t pair = first; pair < first + count; ++pair)
            ws.weights[request.pair_observable[pair] + 1] += request.cotangents ? request.cotangents[pair] : 1;
    }
    team.barrier();
    const std::size_t length = (std::size_t(1) << bits_) / parts;
    team.for_each(parts, thread, [&](int part) {
        check_stop(request.progress->stop);
        double* const sums = ws.values.data() + part * num_slots;
        for (std::size_t i = part * length; i < (part + 1) * length; ++i) {
            const double re = psi.re[i], im = psi.im ? psi.im[i] : 0;
            sums[slots[i]] += re * re + im * im;
        }
    });
    if (request.gradient) {
        const State lam = view(ws.lam, ws.real);
        for_each_chunk(call, team, thread, [&](int chunk) {
            const std::size_t size = std::size_t(1) << (bits_ - chunk_bits_);
            for (std::size_t i = chunk * size; i < (chunk + 1) * size; ++i) {
                const T weight = static_cast<T>(ws.weights[slots[i]]);
                lam.re[i] = weight * (request.imaginary ? -psi.im[i] : psi.re[i]);
                if (lam.im) lam.im[i] = weight * (request.imaginary ? psi.re[i] : psi.im[i]);
            }
        });
    }
    team.barrier();
    for (std::int64_t pair = first; thread == 0 && pair < first + count; ++pair) {
        double value = 0;
        for (int part = 0; part < parts; ++part)
            value += ws.values[part * num_slots + request.pair_observable[pair] + 1];
        request.values[pair] = value;
    }
}

template <class T>
void Engine<T>::copy_state_gradient(Workspace& ws, std::complex<double>* out) const {
    const State lam = view(ws.lam, ws.real);
    const Places places = layout_.places(0);
    for (std::size_t i = 0; i < std::size_t(1) << plan_.num_qubits; ++i)
        out[i] = {2.0 * lam.re[places.at(i)], 2.0 * lam.im[places.at(i)]};
}

template <class T>
void Engine<T>::copy_state_at_start(Workspace& ws, std::complex<double>* out) const {
    const State psi = view(ws.psi[0], ws.real);
    const Places places = layout_.places(0);
    for (std::size_t i = 0; i < std::size_t(1) << plan_.num_qubits; ++i)
        out[i] = {psi.re[places.at(i)], psi.im[places.at(i)]};
}

#define QF_INSTANTIATE(T)                                                                                         \
    template const AffinePhase& Engine<T>::left_phase(const Call&) const;                                         \
    template void Engine<T>::observe_pairs(Call&, Workspace&, Team&, int, int, std::int64_t, std::int64_t, State) \
        const;                                                                                                    \
    template void Engine<T>::copy_state_gradient(Workspace&, std::complex<double>*) const;                        \
    template void Engine<T>::copy_state_at_start(Workspace&, std::complex<double>*) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

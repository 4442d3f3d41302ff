// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: from angles to bound values and tables of phases, of one pack and of the values that all packs of a
// call share.
//
// Determinism: the values of a row depend on this row alone, and on the columns that are the same in all rows.
#include <cmath>
#include <map>

#include "cpu/engine.hpp"

namespace qf {

template <class T>
void Engine<T>::make_pack_phases() {
    pack_phases_.resize(phases_.size());
    if (plan_.num_qubits > MAX_LOW_BITS && undivided_.empty()) return;
    const std::size_t size = std::size_t(1) << plan_.num_qubits;
    std::map<const ConstantTable*, std::shared_ptr<const PackPhase>> made;
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        const ConstantTable* table = phases_of_packs()[k].constant_low.get();
        if (!table) continue;
        auto& entry = made[table];
        if (!entry) {
            auto phase = std::make_shared<PackPhase>();
            phase->values = Buffer<T>(2 * size);
            const Complex first = table->values[0];
            bool are_signs = true;
            std::vector<char> is_negative(size);
            for (std::size_t i = 0; i < size; ++i) {
                const Complex value = table->values[i];
                phase->values[2 * i] = static_cast<T>(value.re);
                phase->values[2 * i + 1] = static_cast<T>(value.im);
                const Complex sign = value * conj(first);
                are_signs = are_signs && std::abs(sign.im) < 1e-15;
                is_negative[i] = sign.re < 0;
            }
            if (are_signs) {
                phase->left = std::atan2(first.im, first.re);
                phase->negate = Buffer<char>(size);
                phase->negate[0] = 0;
                for (std::size_t b = 0, half = 1; half < size; ++b, half *= 2)
                    for (std::size_t i = half; i < 2 * half; ++i)
                        phase->negate[i] = is_negative[i] != is_negative[i - half];
            }
            entry = std::move(phase);
        }
        pack_phases_[k] = entry;
    }
}

template <class T>
template <class S>
void Engine<T>::bind_values(const PackSweeps<S>& packs, const BindList& list, const double* angles,
                            const PackValues<S>& values) const {
    auto of = [](const std::vector<int>& numbers) { return static_cast<int>(numbers.size()); };
    packs.bind_leaves(plan_.leaves.data(), list.leaves.data(), of(list.leaves), angles, values);
    packs.bind_runs(plan_.runs.data(), plan_.leaves.data(), list.runs.data(), of(list.runs), values);
    packs.bind_terms(plan_.terms.data(), list.terms.data(), of(list.terms), angles, values);
}

// Bind the first row, and make the tables of the phases that are the same in all rows. All rows and, with equal angles,
// all layers share the rounding errors of these values, so they are computed in double precision and rounded once.
template <class T>
void Engine<T>::bind_shared_packs(Shared& shared, const double* columns, bool real) const {
    const PackSweeps<double>& exact = best_pack_sweeps<double>();
    const std::size_t from = exact.width, bits = plan_.num_qubits, size = std::size_t(real ? 1 : 2) << bits;
    PackShared<T>& packs = *shared.packs;
    Buffer<double> angles(plan_.num_columns * from), table(size * from), constants;
    const std::vector<char> all(plan_.num_columns, 1);
    PackBound<double> bound(plan_, exact.width);
    exact.load_columns(columns, plan_.num_columns, 1, all.data(), angles.data());
    bind_values(exact, everything_, angles.data(), bound.view());
    bind_shared_runs(shared, bound);
    packs.tables.resize(phases_.size());
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        if (shared.phase_varies[k] || (k == 0 && shared.without_first)) continue;
        const PackPhase* phase = pack_phases_[k].get();
        if (phase && !constants) constants = Buffer<double>(2 << bits);
        if (phase) std::copy_n(phase->values.data(), 2 << bits, constants.data());
        make_pack_table(static_cast<int>(k), exact,
                        {phase ? constants.data() : nullptr, phase ? phase->negate.data() : nullptr},
                        double(packs.norm[k]), bound.view(), real, table.data());
        packs.tables[k] = Buffer<T>(size);
        for (std::size_t i = 0; i < size; ++i) packs.tables[k][i] = static_cast<T>(table[i * from]);
    }
    if constexpr (std::is_same_v<T, double>) {
        packs.bound = std::move(bound);
    } else {
        packs.bound = PackBound<T>(plan_, packs_.width);
        packs.bound.fill(bound, packs_.width, from);
    }
}

// Find the rotations that are the same in all rows, and the norms that they leave out.
template <class T>
void Engine<T>::bind_shared_runs(Shared& shared, PackBound<double>& bound) const {
    const int width = best_pack_sweeps<double>().width;
    PackShared<T>& packs = *shared.packs;
    const std::size_t num_runs = plan_.runs.size();
    packs.is_shared.assign(num_runs, 1);
    for (const int r : shared.varying.runs) packs.is_shared[r] = 0;
    packs.norm2.assign(num_runs, 1.0);
    packs.norm.assign(phases_.size(), T(1));
    double left = 1;  // the error of the norms so far, which the next norm corrects, so that errors do not add up
    for (int k = 0; k < plan_.num_layers; ++k) {
        double norm = 1;
        for (int r = layer_begin_[k + 1] - 1; r >= layer_begin_[k]; --r) {
            PackRotation<T>& rotation = packs.rotations[r];
            rotation = {plan_.runs[r].bit, nullptr, T(0), false};
            const bool is_last = r + 1 == layer_begin_[k + 1] || packs.is_shared[r] != packs.is_shared[r + 1];
            packs.group_end[r] = is_last ? r + 1 : packs.group_end[r + 1];
            if (packs.is_shared[r]) {
                const double t = bound.shears[2 * r * width], s = bound.shears[(2 * r + 1) * width];
                const double cos = 1 - t * s;
                rotation.flip = s > cos;
                rotation.tau = static_cast<T>(rotation.flip ? cos / s : s / cos);
                norm *= (rotation.flip ? -1 : 1) / std::sqrt(1 + double(rotation.tau) * rotation.tau);
                for (int j = 0; rotation.flip && j < 2 * width; ++j)  // T(tau) X leaves out diag(-1, 1)
                    bound.run[(r * RUN_VALUES + OUT_RE) * width + j] *= -1;
            }
            packs.norm2[r] = norm * norm;
        }
        packs.norm[k + 1] = static_cast<T>(norm * left);
        left = norm * left / packs.norm[k + 1];
    }
}

// Give a thread's memory the values that all packs share.
template <class T>
void Engine<T>::take_shared_packs(const PackShared<T>& shared, PackMemory<T>& memory) const {
    memory.bound.copy(shared.bound);
    memory.rotations = shared.rotations;
    for (std::size_t r = 0; r < plan_.runs.size(); ++r)
        if (!shared.is_shared[r]) memory.rotations[r].shears = memory.bound.shears.data() + r * 2 * packs_.width;
}

// Choose the columns that packs read, the places of the tables that vary over rows, and the phases whose sums of p Z
// are computed.
template <class T>
void Engine<T>::prepare_packs(Call& call) const {
    const bool keeps = layout_.keeps_pack_tables(call.shape);
    call.reads = call.shared->packs->column_varies;
    if (call.request.has_ends())
        for (const auto& part : left_phase(call).slopes) call.reads[part.column] = 1;
    call.pack_table.assign(phases_.size(), -1);
    call.has_z.assign(phases_.size(), 0);
    call.has_z[0] = call.request.final_cotangents && !call.real;  // Im<lam|psi>, where phase 0 has no sums
    for (std::size_t k = call.skip_first_adjoint ? 1 : 0; k < phases_.size(); ++k) {
        call.has_z[k] = phases_of_packs()[k].want_sums && !call.real;
        if (!call.shared->phase_varies[k]) continue;
        call.pack_table[k] = keeps ? call.num_pack_tables : 0;
        call.num_pack_tables = call.pack_table[k] + 1;
    }
}

template <class T>
template <class S>
void Engine<T>::make_pack_table(int k, const PackSweeps<S>& packs, const PackConstants<S>& constants, S norm,
                                const PackValues<S>& values, bool real, S* table) const {
    const int bits = plan_.num_qubits, width = packs.width;
    const Phase& phase = phases_of_packs()[k];
    const PackFactors factors{plan_.runs.data(),
                              phase.first_out,
                              phase.end_out,
                              phase.first_in,
                              phase.end_in,
                              phase.one_body.data(),
                              static_cast<int>(phase.one_body.size())};
    packs.fill_table(bits, real ? 1 : 2, factors, values, norm, constants, table);
    for (const auto& pair : phase.low_pairs) {
        const index_t mask = index_t(1) << pair.low | index_t(1) << pair.high;
        for (const auto& source : pair.sources)
            for (int i = 0; !pair.constant && i < std::abs(source.exponent); ++i) {
                // The generator is 1 on |11>, or -1 with the sign of one of the two bits.
                const index_t sign = source.exponent < 0 ? index_t(1) << pair.low : 0;
                packs.multiply_table(bits, mask, mask, sign, values.term + source.term * 2 * width, table);
            }
    }
    for (const auto& many : phase.many_body) {
        const Term& term = plan_.terms[many.term];
        packs.multiply_table(bits, term.care, term.value, term.sign, values.term + many.term * 2 * width, table);
    }
}

template <class T>
const T* Engine<T>::pack_table(Call& call, PackMemory<T>& memory, int k, bool& is_shared) const {
    is_shared = !call.shared->phase_varies[k];
    if (is_shared) return call.shared->packs->tables[k].data();
    T* const table = memory.tables.data() + call.pack_table[k] * layout_.pack_table_size(call.real);
    if (!memory.built[k]) {
        const PackPhase* constants = pack_phases_[k].get();
        make_pack_table(
            k, packs_, {constants ? constants->values.data() : nullptr, constants ? constants->negate.data() : nullptr},
            call.shared->packs->norm[k], memory.bound.view(), call.real, table);
        memory.built[k] = layout_.keeps_pack_tables(call.shape);
    }
    return table;
}

#define QF_INSTANTIATE(T)                                                                                            \
    template void Engine<T>::make_pack_phases();                                                                     \
    template void Engine<T>::bind_values(const PackSweeps<T>&, const BindList&, const double*, const PackValues<T>&) \
        const;                                                                                                       \
    template void Engine<T>::bind_shared_packs(Shared&, const double*, bool) const;                                  \
    template void Engine<T>::take_shared_packs(const PackShared<T>&, PackMemory<T>&) const;                          \
    template void Engine<T>::prepare_packs(Call&) const;                                                             \
    template const T* Engine<T>::pack_table(Call&, PackMemory<T>&, int, bool&) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

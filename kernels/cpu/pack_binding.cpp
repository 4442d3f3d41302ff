// SPDX-License-Identifier: Apache-2.0
//
// Packs of rows: from angles to bound values and tables of phases, of one pack and of the values that all packs of a
// call share.
//
// Determinism: the values of a row depend on this row alone, and on the columns in which its pack differs from the
// first row.
#include <algorithm>
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
            phase->signs = Buffer<T>(size);
            for (std::size_t i = 0; i < size; ++i) {
                const Complex value = table->values[i];
                phase->values[2 * i] = static_cast<T>(value.re);
                phase->values[2 * i + 1] = static_cast<T>(value.im);
                const Complex sign = value * conj(first);
                are_signs = are_signs && std::abs(sign.im) < 1e-15;
                phase->signs[i] = sign.re < 0 ? T(-0.0) : T(0);
            }
            if (are_signs)
                phase->left = std::atan2(first.im, first.re);
            else
                phase->signs = Buffer<T>();
            entry = std::move(phase);
        }
        pack_phases_[k] = entry;
    }
}

// Find the runs and terms that are factors of each bit of each phase.
template <class T>
void Engine<T>::make_pack_factors() {
    const int bits = plan_.num_qubits;
    if (bits > MAX_LOW_BITS && undivided_.empty()) return;
    for (const Phase& phase : phases_of_packs()) {
        const std::size_t begin = pack_factors_.size();
        const OneBody *one = phase.one_body.data(), *const end = one + phase.one_body.size();
        for (int b = 0; b < bits; ++b) {
            PackFactor factor{-1, -1, one, 0};
            while (one < end && one->bit == b) ++one, ++factor.num_terms;
            pack_factors_.push_back(factor);
        }
        for (int r = phase.first_out; r < phase.end_out; ++r) pack_factors_[begin + plan_.runs[r].bit].out = r;
        for (int r = phase.first_in; r < phase.end_in; ++r) pack_factors_[begin + plan_.runs[r].bit].in = r;
    }
}

// Find the columns whose gradient has one summand. It is stored without a sum.
template <class T>
void Engine<T>::find_single_columns() {
    std::vector<int> count(plan_.num_columns);
    auto add = [&](int column, int summands) {
        if (column >= 0) count[column] += summands;
    };
    for (const auto& leaf : plan_.leaves)
        for (int j = 0; j < (leaf.kind == LEAF_RV ? 3 : 1); ++j) add(leaf.column + j, leaf.kind == LEAF_RV ? 2 : 1);
    for (const auto& term : plan_.terms) {
        // Sums of several bits, and of phase 0, are added.
        const index_t support = term.care | term.sign;
        add(term.column, term.phase == 0 || (support & (support - 1)) ? 2 : 1);
    }
    for (const auto& part : layout_.gradients_of_first) add(part.column, 2);
    is_single_.resize(plan_.num_columns);
    for (int c = 0; c < plan_.num_columns; ++c) {
        is_single_[c] = count[c] == 1;
        if (count[c] > 1) summed_columns_.push_back(c);
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

// Find the columns in which packs differ from the first row. Return the columns in which some row differs. All packs
// have one set unless this more than halves the number of columns that they bind.
template <class T>
std::vector<char> Engine<T>::find_sets(const Request& request, PackShared<T>& packs) const {
    const int num_columns = plan_.num_columns, width = packs_.width;
    auto row_at = [&](int row) { return request.columns + static_cast<std::size_t>(row) * num_columns; };
    std::vector<char> any(num_columns), every(num_columns, 1);
    packs.sets.clear();
    packs.set_of.clear();
    std::vector<int> same, different;  // the columns outside the latest set, and the columns of the set
    std::vector<std::int64_t> differs(num_columns);
    const std::int64_t num_packs = layout_.num_packs(request.rows);
    std::int64_t num_bound = 0;
    for (int begin = 0; begin < request.rows; begin += width) {
        check_stop(request.progress->stop);
        const int end = std::min(begin + width, request.rows);
        Ahead(row_at(std::min(end + width, request.rows) - 1), num_columns, 1).fetch_some();
        // Most batches have one set.
        bool is_latest = !packs.sets.empty() &&
                         count_different(row_at(end - 1), row_at(0), different) == static_cast<int>(different.size());
        for (int row = begin; is_latest && row < end; ++row)
            is_latest = count_different(row_at(row), row_at(0), same) == 0;
        if (!is_latest) {
            std::fill(differs.begin(), differs.end(), 0);
            for (int row = begin; row < end; ++row)
                for (int c = 0; c < num_columns; ++c) differs[c] |= row_at(row)[c] != request.columns[c];
            packs.sets.emplace_back(differs.begin(), differs.end());
            same.clear();
            different.clear();
            for (int c = 0; c < num_columns; ++c) (differs[c] ? different : same).push_back(c);
            for (const int c : different) any[c] = 1;
        }
        packs.set_of.push_back(static_cast<int>(packs.sets.size()) - 1);
        num_bound += static_cast<std::int64_t>(different.size());
        // One set serves all packs if half of them bind all columns. The other packs are then not looked at.
        if (same.empty() && 2 * num_bound >= num_columns * num_packs) break;
    }
    packs.set_of.resize(num_packs, 0);
    auto size_of = [](const std::vector<char>& set) { return std::count(set.begin(), set.end(), 1); };
    const std::size_t table_bytes = (phases_.size() * 2 * sizeof(T)) << plan_.num_qubits;
    if (2 * num_bound >= size_of(any) * num_packs || table_bytes > most_set_tables) {
        packs.sets.assign(1, any);
        packs.set_of.assign(num_packs, 0);
    }
    for (const auto& set : packs.sets)
        for (int c = 0; c < num_columns; ++c) every[c] &= set[c];
    packs.common.varying = varying(plan_, every);
    set_phases(packs.common);
    return any;
}

// Set the phases that vary with the runs and terms of a variation.
template <class T>
void Engine<T>::set_phases(PackVariation<T>& variation) const {
    variation.phase_varies = phases_of(plan_, variation.varying);
    variation.phases.clear();
    for (std::size_t k = 0; k < phases_.size(); ++k)
        if (variation.phase_varies[k]) variation.phases.push_back(static_cast<int>(k));
}

// Bind the first row, and make the tables of the phases that are the same in all rows of some pack. All rows and, with
// equal angles, all layers share the rounding errors of these values, so they are computed in double precision and
// rounded once.
template <class T>
void Engine<T>::bind_shared_packs(Shared& shared, const double* columns, bool real) const {
    const PackSweeps<double>& exact = best_pack_sweeps<double>();
    const std::size_t from = exact.width, bits = plan_.num_qubits, size = std::size_t(real ? 1 : 2) << bits;
    PackShared<T>& packs = *shared.packs;
    auto take = [](Buffer<double>& buffer, std::size_t count) {
        if (buffer.size() != count) buffer = Buffer<double>(count);
    };
    take(packs.exact_angles, plan_.num_columns * from);
    take(packs.exact_table, size * from);
    take(packs.exact_factors, 2 * bits * from);
    Buffer<double>&angles = packs.exact_angles, &table = packs.exact_table, &constants = packs.exact_constants;
    Buffer<double>&factors = packs.exact_factors, &signs = packs.exact_signs;
    const std::vector<char> all(plan_.num_columns, 1);
    PackBound<double>& bound = packs.exact;
    if (!bound.leaf && !bound.term) bound = PackBound<double>(plan_, exact.width);
    packs.is_finite = exact.load_columns(columns, plan_.num_columns, 1, all.data(), angles.data());
    bind_values(exact, everything_, angles.data(), bound.view());
    bind_shared_runs(packs.common, bound);
    packs.tables.resize(phases_.size());
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        if (packs.common.phase_varies[k] || (k == 0 && shared.without_first)) {
            packs.tables[k] = Buffer<T>();
            continue;
        }
        const PackPhase* phase = pack_phases_[k].get();
        if (phase && !constants) constants = Buffer<double>(2 << bits), signs = Buffer<double>(1 << bits);
        if (phase) std::copy_n(phase->values.data(), 2 << bits, constants.data());
        if (phase && phase->signs) std::copy_n(phase->signs.data(), 1 << bits, signs.data());
        const int only = 0;
        exact.set_factors(static_cast<int>(bits), pack_factors_.data() + k * bits, &only, 1, bound.view(),
                          factors.data());
        make_pack_table(static_cast<int>(k), exact,
                        {phase ? constants.data() : nullptr, phase && phase->signs ? signs.data() : nullptr},
                        double(packs.common.norm[k]), bound.view(), factors.data(), real, table.data());
        if (packs.tables[k].size() != size) packs.tables[k] = Buffer<T>(size);
        for (std::size_t i = 0; i < size; ++i) packs.tables[k][i] = static_cast<T>(table[i * from]);
    }
    if constexpr (std::is_same_v<T, double>) {
        packs.bound = std::move(bound);
    } else {
        if (!packs.bound.leaf && !packs.bound.term) packs.bound = PackBound<T>(plan_, packs_.width);
        packs.bound.fill(bound, packs_.width, from);
    }
}

// Find the rotations that are the same in all rows of some pack, and the norms that they leave out.
template <class T>
void Engine<T>::bind_shared_runs(PackVariation<T>& common, PackBound<double>& bound) const {
    const int width = best_pack_sweeps<double>().width;
    const std::size_t num_runs = plan_.runs.size();
    common.rotations.resize(num_runs);
    common.group_end.resize(num_runs);
    common.inverse2.resize(num_runs);
    common.is_shared.assign(num_runs, 1);
    for (const int r : common.varying.runs) common.is_shared[r] = 0;
    for (std::size_t r = 0; r < num_runs; ++r) {
        PackRotation<T>& rotation = common.rotations[r];
        rotation = {plan_.runs[r].bit, nullptr, T(0), false};
        if (!common.is_shared[r]) continue;
        const double t = bound.shears[2 * r * width], s = bound.shears[(2 * r + 1) * width];
        const double cos = 1 - t * s;
        rotation.flip = s > cos;
        rotation.tau = static_cast<T>(rotation.flip ? cos / s : s / cos);
        for (int j = 0; rotation.flip && j < 2 * width; ++j)  // T(tau) X leaves out diag(-1, 1)
            bound.run[(r * RUN_VALUES + OUT_RE) * width + j] *= -1;
    }
    common.norm.assign(phases_.size(), T(1));
    double left = 1;  // the error of the norms so far, which the next norm corrects, so that errors do not add up
    for (int k = 0; k < plan_.num_layers; ++k) {
        left *= set_groups(common, k);
        common.norm[k + 1] = static_cast<T>(left);
        left /= common.norm[k + 1];
    }
}

// Set the groups and the norms of the runs of a layer. Return the norm of the layer.
template <class T>
double Engine<T>::set_groups(PackVariation<T>& variation, int layer) const {
    double norm = 1;
    for (int r = layer_begin_[layer + 1] - 1; r >= layer_begin_[layer]; --r) {
        const bool is_last = r + 1 == layer_begin_[layer + 1] || variation.is_shared[r] != variation.is_shared[r + 1];
        variation.group_end[r] = is_last ? r + 1 : variation.group_end[r + 1];
        const PackRotation<T>& rotation = variation.rotations[r];
        if (variation.is_shared[r])
            norm *= (rotation.flip ? -1 : 1) / std::sqrt(1 + double(rotation.tau) * rotation.tau);
        variation.inverse2[r] = static_cast<T>(1 / (norm * norm));
    }
    return norm;
}

// Give a thread's memory the values that packs share.
template <class T>
void Engine<T>::take_shared_packs(const PackShared<T>& shared, PackMemory<T>& memory) const {
    memory.bound.copy(shared.bound);
    memory.variation = &shared.common;
    memory.set = shared.sets.size() > 1 ? -1 : 0;
    point_to_shears(memory);
}

// Take the rotations of a memory's variation, with the shears that packs bind.
template <class T>
void Engine<T>::point_to_shears(PackMemory<T>& memory) const {
    memory.rotations = memory.variation->rotations;
    for (const int r : memory.variation->varying.runs)
        memory.rotations[r].shears = memory.bound.shears.data() + std::size_t(2) * r * packs_.width;
}

// Prepare a thread's memory for packs of a set. The values in which packs of its last set differ become those of the
// first row again.
template <class T>
void Engine<T>::take_variation(const PackShared<T>& shared, int set, PackMemory<T>& memory) const {
    if (memory.set == set) return;
    if (memory.set >= 0) memory.bound.copy(shared.bound, memory.own.varying, packs_.width);
    memory.set = set;
    PackVariation<T>& own = memory.own;
    own = shared.common;
    own.varying = varying(plan_, shared.sets[set]);
    set_phases(own);
    for (const int r : own.varying.runs) {
        own.rotations[r] = {plan_.runs[r].bit, nullptr, T(0), false};
        own.is_shared[r] = 0;
    }
    int layer = -1;
    for (const int r : own.varying.runs) {
        if (plan_.runs[r].layer == layer) continue;
        layer = plan_.runs[r].layer;
        own.norm[layer + 1] = static_cast<T>(set_groups(own, layer));
    }
    memory.variation = &own;
    point_to_shears(memory);
}

// Choose the columns that packs read, the places of the tables that vary over rows, and the phases whose sums of p Z
// are computed.
template <class T>
void Engine<T>::prepare_packs(Call& call) const {
    call.keeps_pack_tables = layout_.keeps_pack_tables(call.shape);
    call.keeps_pack_states = call.request.gradient && layout_.keeps_pack_states(call.shape);
    call.reads = call.shared->packs->column_varies;
    if (call.request.has_ends())
        for (const auto& part : left_phase(call).angles) call.reads[part.column] = 1;
    call.pack_table.assign(phases_.size(), -1);
    call.has_z.assign(phases_.size(), 0);
    call.has_z[0] = call.request.final_cotangents && !call.real;  // Im<lam|psi>, where phase 0 has no sums
    const std::size_t last_phase = phases_.size() - 1;
    for (std::size_t k = call.skip_first_adjoint ? 1 : 0; k < phases_.size(); ++k) {
        call.has_z[k] = phases_of_packs()[k].want_sums && !call.real && !(k == last_phase && call.last_phase_cancels);
        if (!call.shared->phase_varies[k]) continue;
        call.pack_table[k] = call.keeps_pack_tables ? call.num_pack_tables : 0;
        call.num_pack_tables = call.pack_table[k] + 1;
    }
}

template <class T>
template <class S>
void Engine<T>::make_pack_table(int k, const PackSweeps<S>& packs, const PackConstants<S>& constants, S norm,
                                const PackValues<S>& values, const S* factors, bool real, S* table) const {
    const int bits = plan_.num_qubits, width = packs.width;
    const Phase& phase = phases_of_packs()[k];
    packs.fill_table(bits, real ? 1 : 2, factors, norm, constants, table);
    for (const auto& pair : phase.low_pairs) {
        if (pair.constant) continue;
        const index_t mask = index_t(1) << pair.low | index_t(1) << pair.high;
        for (const auto& source : pair.sources)
            for (int i = 0; i < std::abs(source.exponent); ++i) {
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
const T* Engine<T>::pack_table(const Call& call, PackMemory<T>& memory, int k, bool& is_shared) const {
    is_shared = !memory.variation->phase_varies[k];
    if (is_shared) return call.shared->packs->tables[k].data();
    return call.keeps_pack_tables ? memory.tables.data() + call.pack_table[k] * layout_.pack_table_size(call.real)
                                  : make_own_table(call, memory, k);
}

// Bind the phases that vary over the rows: their factors, and their tables if both sweeps use them.
template <class T>
void Engine<T>::bind_own_phases(const Call& call, PackMemory<T>& memory, const PackValues<T>& values) const {
    const std::vector<int>& phases = memory.variation->phases;
    const int *first = phases.data(), *end = first + phases.size();
    if (first < end && *first == 0 && call.skip_first_adjoint) ++first;
    if (first < end && leaves_out(call, memory, end[-1])) --end;
    packs_.set_factors(plan_.num_qubits, pack_factors_.data(), first, static_cast<int>(end - first), values,
                       memory.factors.data());
    // The tables of several phases are made one after the other. A core then works on several tables at the same time.
    for (; call.keeps_pack_tables && first < end; ++first) make_own_table(call, memory, *first);
}

// Make the table of a phase that varies over the rows.
template <class T>
const T* Engine<T>::make_own_table(const Call& call, PackMemory<T>& memory, int k) const {
    const PackPhase* constants = pack_phases_[k].get();
    T* const table = memory.tables.data() + call.pack_table[k] * layout_.pack_table_size(call.real);
    make_pack_table(k, packs_,
                    {constants ? constants->values.data() : nullptr, constants ? constants->signs.data() : nullptr},
                    memory.variation->norm[k], memory.bound.view(),
                    memory.factors.data() + std::size_t(2) * k * plan_.num_qubits * packs_.width, call.real, table);
    return table;
}

#define QF_INSTANTIATE(T)                                                                                            \
    template void Engine<T>::make_pack_phases();                                                                     \
    template void Engine<T>::make_pack_factors();                                                                    \
    template void Engine<T>::find_single_columns();                                                                  \
    template void Engine<T>::bind_values(const PackSweeps<T>&, const BindList&, const double*, const PackValues<T>&) \
        const;                                                                                                       \
    template std::vector<char> Engine<T>::find_sets(const Request&, PackShared<T>&) const;                           \
    template void Engine<T>::bind_shared_packs(Shared&, const double*, bool) const;                                  \
    template void Engine<T>::take_shared_packs(const PackShared<T>&, PackMemory<T>&) const;                          \
    template void Engine<T>::take_variation(const PackShared<T>&, int, PackMemory<T>&) const;                        \
    template void Engine<T>::prepare_packs(Call&) const;                                                             \
    template const T* Engine<T>::pack_table(const Call&, PackMemory<T>&, int, bool&) const;                          \
    template void Engine<T>::bind_own_phases(const Call&, PackMemory<T>&, const PackValues<T>&) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

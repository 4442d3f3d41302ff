// SPDX-License-Identifier: Apache-2.0
//
// The sizes of all buffers, the choices that depend on these sizes, and the prediction of memory.
#include <algorithm>
#include <cmath>
#include <set>

#include "cpu/dense.hpp"
#include "cpu/layout.hpp"
#include "cpu/linear.hpp"
#include "cpu/phase_tables.hpp"
#include "shared/tuning.h"

namespace qf {
namespace {

constexpr std::size_t resident_row_tables = std::size_t(2) << 20;      // most bytes of tables that one row keeps
constexpr std::size_t resident_shared_tables = std::size_t(64) << 20;  // most bytes of tables that a batch shares

std::size_t bytes_of(const PlanData& plan) {
    return plan.leaves.size() * sizeof(Leaf) + plan.runs.size() * sizeof(Run) + plan.terms.size() * sizeof(Term) +
           (plan.initial_re.size() + plan.initial_im.size()) * sizeof(double);
}

std::size_t bytes_of_matrices(const PlanData& plan) {
    std::size_t bytes = 0;
    for (const auto& gate : plan.dense) bytes += sizeof(DenseGate) + gate.matrix.size() * sizeof(gate.matrix[0]);
    return bytes;
}

std::size_t bytes_without_tables(const Phase& phase) {
    std::size_t bytes = sizeof(Phase) + phase.one_body.size() * sizeof(OneBody);
    for (const auto* pairs : {&phase.low_pairs, &phase.high_pairs, &phase.cross_pairs})
        for (const auto& pair : *pairs) bytes += sizeof(Pair) + pair.sources.size() * sizeof(Pair::Source);
    return bytes + phase.many_body.size() * sizeof(ManyBody);
}

std::size_t bytes_of(const Phase& phase, int low_bits) {
    std::size_t bytes = bytes_without_tables(phase);
    for (const auto& many : phase.many_body) bytes += many.by_walsh ? 0 : sizeof(double) << low_bits;
    return bytes;
}

// Count the bytes of the groups, and of the places of their runs, as if each run were its own group, so that
// predictions do not depend on the vector width of the CPU.
std::size_t bytes_of_groups(const PlanData& plan) {
    constexpr int num_lists = 4;
    return num_lists * (plan.num_layers * (sizeof(Groups::value_type) + 2) + 1 +
                        plan.runs.size() * (sizeof(Group) + sizeof(int) + sizeof(RunPlace)));
}

std::size_t bytes_of_constants(const std::vector<Phase>& phases) {
    std::set<const ConstantTable*> seen;
    std::size_t bytes = 0;
    for (const auto& phase : phases)
        for (const auto* table : {phase.constant_low.get(), phase.constant_high.get()})
            if (table && seen.insert(table).second) bytes += sizeof(Complex) << table->bits;
    return bytes;
}

// Count the bytes of the constants in the form of packs (Engine::PackPhase), and of the places of factors.
template <class T>
std::size_t bytes_of_pack_constants(const std::vector<Phase>& phases, int num_qubits) {
    std::set<const ConstantTable*> tables;
    for (const auto& phase : phases)
        if (phase.constant_low) tables.insert(phase.constant_low.get());
    return tables.size() * (3 * sizeof(T) << num_qubits) + phases.size() * num_qubits * sizeof(PackFactor);
}

}  // namespace

template <class T>
std::size_t WorkspaceSizes::bytes() const {
    const std::size_t states = num_states * psi + lam + saved;
    const std::size_t of_thread = (block + low_sums + diagonal) * sizeof(T) + reduce * sizeof(double);
    const std::size_t sums = total + linear + cross + run_sums + z_sums + pair_sums + many_sums + values + overlaps;
    const std::size_t of_phases = phases * (sizeof(PhaseTables<T>) + 1 + 2 * sizeof(T)) + layers * sizeof(double);
    const std::size_t scratch =
        table_values * sizeof(Complex) + table_strings * sizeof(double) + table_base * sizeof(T);
    return states * sizeof(T) + num_threads * of_thread + (sums + w + run_gradient) * sizeof(double) + of_phases +
           scratch + bound_bytes + rotations * sizeof(Rotation<T>) + with_x;
}

template <class T>
std::size_t Layout<T>::count_plan_bytes() const {
    std::size_t bytes =
        bytes_of(plan) + bytes_of_matrices(plan) + bytes_of_constants(phases) + bytes_of_groups(plan) +
        bytes_of_constants(undivided) +
        bytes_of_pack_constants<T>(plan.num_qubits <= MAX_LOW_BITS ? phases : undivided, plan.num_qubits) +
        (everything.leaves.size() + everything.runs.size() + everything.terms.size()) * sizeof(int) +
        (phase_of_all.angles.size() + phase_without_first.angles.size()) * sizeof(AffineAngle) +
        gradients_of_first.size() * sizeof(ColumnSlope);
    for (const auto& gate : plan.dense) bytes += DenseForm<T>::bytes(gate);
    for (const auto& map : plan.maps) bytes += map.columns.size() * sizeof(index_t) + LinearForm<T>::bytes(windows[0]);
    bytes += plan.map_steps.size() * sizeof(MapStep) + (map_of.size() + frame_of.size()) * sizeof(int);
    for (const auto& frame : frames) bytes += sizeof(Frame) + 2 * frame.place.size() * sizeof(std::uint32_t);
    for (const auto& phase : undivided) bytes += 2 * bytes_without_tables(phase);
    for (const auto& phase : phases)
        bytes += bytes_without_tables(phase) + bytes_of(phase, low_bits);  // the copies of layout and engine
    return bytes + run_packs.bytes();
}

template <class T>
WorkspaceSizes Layout<T>::workspace(const BatchShape& shape, int num_threads) const {
    const std::size_t low = std::size_t(1) << low_bits, chunks = std::size_t(1) << chunk_bits;
    const std::size_t blocks = std::size_t(1) << (bits - low_bits);
    const std::size_t high = std::size_t(1) << std::max(plan.num_qubits - low_bits, 0);
    const bool real = is_real(shape);
    WorkspaceSizes sizes;
    sizes.num_states = shape.num_states;
    sizes.num_threads = num_threads;
    sizes.psi = state_size(0, real);
    if (shape.gradient) sizes.lam = state_size(1, real);
    if (shape.saves_psi) sizes.saved = state_size(0, real);
    sizes.block = 3 * low;
    if (!plan.maps.empty())
        sizes.block = std::max(sizes.block, std::size_t(1) << LinearForm<T>::block_bits(windows[0]));
    sizes.low_sums = (blocks > chunks * blocks_per_sum ? 2 : 1) * max_variants * low;
    sizes.diagonal = 2 * low;
    sizes.reduce = any_whole_ && shape.gradient ? std::max(2 * low, std::size_t(1) << (bits - chunk_bits))
                                                : std::max(2 * low, blocks / chunks);
    sizes.values = chunks * shape.values_per_row;
    // for each outcome, and for no outcome: the sums of all parts, and a weight
    if (shape.num_outcomes) sizes.values = (outcome_parts(shape.num_outcomes) + 1) * (shape.num_outcomes + 1);
    sizes.table_values = std::max(low, high) + plan.num_qubits;
    sizes.table_strings = any_whole_ ? std::size_t(2) << plan.num_qubits : 0;
    sizes.table_base = 2 * low;
    sizes.layers = plan.num_layers;
    sizes.phases = phases.size();
    sizes.binds_rows = shape.rows > 1;
    if (sizes.binds_rows) sizes.bound_bytes = bound_bytes;
    sizes.rotations = (!shape.gradient ? 1 : shape.scheduled ? 3 : 2) * plan.runs.size();
    if (!shape.gradient) return sizes;
    sizes.with_x = plan.runs.size();
    sizes.total = blocks;
    if (any_linear_) sizes.linear = blocks * low_bits;
    sizes.cross = blocks * most_cross_;
    sizes.run_sums = chunks * plan.runs.size() * 2;
    sizes.z_sums = chunks * phases.size() * plan.num_qubits;
    sizes.pair_sums = chunks * pair_begin.back();
    sizes.many_sums = chunks * many_begin.back();
    sizes.w = run_packs.size_of_w();
    sizes.run_gradient = run_packs.plan.num_columns * run_packs.width;
    sizes.overlaps = chunks;
    return sizes;
}

template <class T>
PackSizes Layout<T>::pack_sizes(const BatchShape& shape) const {
    const std::size_t size = std::size_t(1) << plan.num_qubits, width = packs.width;
    PackSizes sizes;
    sizes.width = packs.width;
    sizes.state = pack_table_size(is_real(shape));
    sizes.num_psi = shape.gradient && keeps_pack_states(shape) ? plan.num_layers + 2 : 1;
    sizes.num_lam = shape.gradient ? 1 : 0;
    sizes.num_saved = shape.saves_psi && sizes.num_psi == 1 ? 1 : 0;
    sizes.angles = plan.num_columns * width;
    sizes.ends = 3 * width;
    sizes.values = (shape.num_outcomes + 1) * width;
    sizes.diagonal = 2 * size;
    sizes.factors = phases.size() * plan.num_qubits * 2 * width;
    sizes.bound_bytes = PackBound<T>::bytes(plan, packs.width);
    sizes.num_runs = plan.runs.size();
    if (!shape.gradient) return sizes;
    sizes.weights = sizes.values;
    sizes.p = size * width;
    sizes.run_sums = 2 * plan.runs.size() * width;
    sizes.z = phases.size() * plan.num_qubits * width;
    sizes.w = 3 * plan.runs.size() * width;
    sizes.gradient = plan.num_columns * width;
    return sizes;
}

template <class T>
bool Layout<T>::keeps_pack_tables(const BatchShape& shape) const {
    return shape.gradient && phases.size() * pack_table_size(is_real(shape)) * sizeof(T) <= most_pack_tables;
}

template <class T>
bool Layout<T>::keeps_pack_states(const BatchShape& shape) const {
    return (plan.num_layers + 2) * pack_table_size(is_real(shape)) * sizeof(T) <= most_pack_states;
}

template <class T>
bool Layout<T>::shares_tables(std::int64_t rows) const {
    return all_tables_ <= (rows > 1 ? resident_shared_tables : resident_row_tables);
}

template <class T>
bool Layout<T>::rows_keep_tables() const {
    return all_tables_ <= resident_row_tables;
}

template <class T>
TableBytes Layout<T>::tables_of(const std::vector<char>& chosen, bool without_first) const {
    TableBytes tables;
    for (std::size_t k = without_first ? 1 : 0; k < phases.size(); ++k) {
        if (!chosen[k]) continue;
        tables.all += table_bytes_[k];
        tables.largest = std::max(tables.largest, table_bytes_[k]);
        ++tables.count;
    }
    return tables;
}

template <class T>
RecalledSizes Layout<T>::recalled(const BatchShape& shape) const {
    RecalledSizes sizes;
    const bool packed = is_packed(shape), real = is_real(shape);
    if (shape.gradient || shape.starts_given || shape.rows * plan.num_columns * sizeof(double) > most_recalled_columns)
        return sizes;
    sizes.unit =
        packed ? pack_table_size(real) * (keeps_pack_states(shape) ? plan.num_layers + 2 : 1) : state_size(0, real);
    sizes.units =
        std::min<std::int64_t>(packed ? num_packs(shape.rows) : shape.rows, most_recalled / (sizes.unit * sizeof(T)));
    return sizes;
}

template <class T>
std::size_t Layout<T>::diagonals_bytes(std::size_t num_flips, std::size_t num_diagonals) const {
    return stores_diagonals(plan.num_qubits, num_flips) ? num_diagonals * sizeof(T) << bits : 0;
}

template <class T>
std::size_t Layout<T>::predict(const BatchShape& shape, TableBytes varying, std::size_t num_flips,
                               std::size_t num_diagonals) const {
    const bool packed = is_packed(shape);
    const Threading work = threading(shape.rows, shape.num_threads, packed);
    const TableBytes all = tables_of(std::vector<char>(phases.size(), 1), skips_first_phase(shape));
    if (shape.rows <= 1) varying = {};
    const std::size_t slots = shape.num_outcomes ? sizeof(std::int32_t) << std::max(plan.num_qubits, MAX_LOW_BITS) : 0;
    const std::size_t common =
        plan_bytes + recalled(shape).template bytes<T>() + diagonals_bytes(num_flips, num_diagonals) + slots;
    if (packed) {
        const std::size_t num_tables =
            keeps_pack_tables(shape) ? varying.count : std::min<std::size_t>(varying.count, 1);
        const std::size_t tables = num_tables * pack_table_size(is_real(shape)) * sizeof(T);
        return work.rows * (pack_sizes(shape).template bytes<T>() + tables) +
               pack_shared_bytes(shape, all.count - varying.count) + common;
    }
    const TableBytes of_row = shares_tables(shape.rows) ? varying : all;
    const std::size_t shared = shares_tables(shape.rows) ? all.all - varying.all : 0;
    const std::size_t row = workspace(shape, work.threads / work.rows).template bytes<T>() +
                            (rows_keep_tables() ? of_row.all : of_row.largest);
    return work.rows * row + shared + bound_bytes + common;
}

template <class T>
std::size_t Layout<T>::pack_shared_bytes(const BatchShape& shape, std::size_t num_tables) const {
    const std::size_t width = best_pack_sweeps<double>().width;
    const std::size_t size = std::size_t(is_real(shape) ? 1 : 2) << plan.num_qubits;
    const std::size_t exact =
        PackBound<double>::bytes(plan, width) +
        (width * (plan.num_columns + 2 * plan.num_qubits + size) + (std::size_t(3) << plan.num_qubits)) *
            sizeof(double);
    return PackBound<T>::bytes(plan, packs.width) + PackVariation<T>::bytes(plan) + plan.num_columns +
           num_tables * size * sizeof(T) + exact;
}

template <class T>
std::size_t Layout<T>::most_shared_bytes(std::size_t num_terms) const {
    std::size_t tables = all_tables_ <= resident_shared_tables ? all_tables_ : 0;
    if (!undivided.empty()) tables = std::max(tables, (undivided.size() * 2 * sizeof(T)) << plan.num_qubits);
    if (plan.num_qubits > most_diagonal_qubits) return tables;
    const double of_terms = std::ldexp(2.0 * static_cast<double>(num_terms) * sizeof(T), bits);
    return tables + static_cast<std::size_t>(std::min(of_terms, 2.0 * most_diagonal_bytes));
}

template std::size_t WorkspaceSizes::bytes<float>() const;
template std::size_t WorkspaceSizes::bytes<double>() const;
#define QF_INSTANTIATE(T)                                                                                   \
    template std::size_t Layout<T>::count_plan_bytes() const;                                               \
    template WorkspaceSizes Layout<T>::workspace(const BatchShape&, int) const;                             \
    template PackSizes Layout<T>::pack_sizes(const BatchShape&) const;                                      \
    template bool Layout<T>::keeps_pack_tables(const BatchShape&) const;                                    \
    template bool Layout<T>::keeps_pack_states(const BatchShape&) const;                                    \
    template bool Layout<T>::shares_tables(std::int64_t) const;                                             \
    template bool Layout<T>::rows_keep_tables() const;                                                      \
    template TableBytes Layout<T>::tables_of(const std::vector<char>&, bool) const;                         \
    template RecalledSizes Layout<T>::recalled(const BatchShape&) const;                                    \
    template std::size_t Layout<T>::diagonals_bytes(std::size_t, std::size_t) const;                        \
    template std::size_t Layout<T>::predict(const BatchShape&, TableBytes, std::size_t, std::size_t) const; \
    template std::size_t Layout<T>::pack_shared_bytes(const BatchShape&, std::size_t) const;                \
    template std::size_t Layout<T>::most_shared_bytes(std::size_t) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

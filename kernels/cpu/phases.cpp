// SPDX-License-Identifier: Apache-2.0
//
// The phases of a plan: which terms are factors of |1> and |11>, which are constants, and which join low and high bits.
#include "cpu/phases.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "shared/masks.h"
#include "shared/tuning.h"

namespace qf {
namespace {

int bit_count(index_t x) {
    return __builtin_popcountll(x);
}
int lowest_bit(index_t x) {
    return __builtin_ctzll(x);
}

Pair& find_pair(std::vector<Pair>& pairs, int low, int high) {
    for (auto& pair : pairs)
        if (pair.low == low && pair.high == high) return pair;
    pairs.push_back({low, high, true, {}});
    return pairs.back();
}

// Terms on one or two qubits are applied without the constant of their polynomial, see add_few_body().
bool is_few_body(const Term& term) {
    return bit_count(term.care | term.sign) <= 2;
}

void add_few_body(Phase& phase, int index, const Term& term, int low_bits) {
    const index_t support = term.care | term.sign;
    const int a = lowest_bit(support), b = 63 - __builtin_clzll(support);
    const bool constant = term.column < 0;
    // g(x_a, x_b) is the value of the generator. As a polynomial in x_a and x_b it has the coefficients g10 - g00 of
    // x_a, g01 - g00 of x_b, and g11 - g10 - g01 + g00 of x_a x_b.
    auto g = [&](int xa, int xb) {
        return generator(term.care, term.value, term.sign, index_t(xa) << a | index_t(xb) << b);
    };
    if (a == b) {
        if (const int exponent = g(1, 1) - g(0, 0)) phase.one_body.push_back({a, index, exponent});
        return;
    }
    const int g00 = g(0, 0), g10 = g(1, 0), g01 = g(0, 1), g11 = g(1, 1);
    if (g10 != g00) phase.one_body.push_back({a, index, g10 - g00});
    if (g01 != g00) phase.one_body.push_back({b, index, g01 - g00});
    auto& pairs = b < low_bits ? phase.low_pairs : a >= low_bits ? phase.high_pairs : phase.cross_pairs;
    Pair& pair = find_pair(pairs, a, b);
    pair.sources.push_back({index, g11 - g10 - g01 + g00});
    if (!constant) pair.constant = false;
}

// Return the trace of the generator of a term divided by its dimension.
double mean_of(const Term& term) {
    if (term.sign & ~term.care) return 0;
    return std::ldexp(parity(term.value & term.sign) ? -1.0 : 1.0, -bit_count(term.care));
}

void add_many_body(Phase& phase, int index, const Term& term, int low_bits) {
    const index_t low_mask = (index_t(1) << low_bits) - 1;
    ManyBody many{};
    many.term = index;
    many.has_low = (term.care | term.sign) & low_mask;
    many.has_high = (term.care | term.sign) & ~low_mask;
    many.sign = term.sign;
    many.high_care = term.care >> low_bits;
    many.high_value = term.value >> low_bits;
    many.high_sign = term.sign >> low_bits;
    many.mean = mean_of(term);
    phase.many_body.push_back(std::move(many));
}

// Decide whether a phase is one table of all amplitudes. Without the table, each Z string that joins low and high bits
// costs a few multiply-adds for each amplitude. The Walsh transform that makes the table costs about n for each
// amplitude, for any number of strings. Measured with 8 n strings: the table takes half the time at n = 10, and about
// the same time at n = 16 to 20.
void choose_whole(const PlanData& plan, int high_bits, Phase& phase) {
    constexpr int strings_per_qubit = 8;
    auto joins = [&](const ManyBody& many) { return many.has_low && many.has_high && !plan.terms[many.term].care; };
    if (high_bits > max_variant_bits) return;
    if (std::count_if(phase.many_body.begin(), phase.many_body.end(), joins) < strings_per_qubit * plan.num_qubits)
        return;
    phase.whole = true;
    for (auto& many : phase.many_body) many.by_walsh = joins(many);
    for (int b = 0; b < high_bits; ++b) phase.variant_bits.push_back(b);
}
// Most circuits have the same constants in every layer, so equal constants share one table.
using TableKey = std::vector<std::tuple<index_t, index_t, index_t, double>>;
using TableCache = std::map<std::pair<int, TableKey>, std::shared_ptr<const ConstantTable>>;

std::shared_ptr<const ConstantTable> find_constants(TableCache& cache, const PlanData& plan,
                                                    const std::vector<Pair>& pairs, const std::vector<int>& many_terms,
                                                    int shift, int bits) {
    TableKey key;
    auto add = [&](const Term& t) { key.emplace_back(t.care >> shift, t.value >> shift, t.sign >> shift, t.offset); };
    std::vector<Pair> constant;
    for (const auto& pair : pairs)
        if (pair.constant) {
            constant.push_back(pair);
            for (const auto& source : pair.sources) add(plan.terms[source.term]);
        }
    for (const int t : many_terms) add(plan.terms[t]);
    if (key.empty()) return nullptr;
    std::sort(key.begin(), key.end());
    auto& table = cache[{bits, key}];
    if (!table) table = std::make_shared<ConstantTable>(ConstantTable{shift, bits, constant, many_terms, {}});
    return table;
}
}  // namespace

std::vector<Phase> make_phases(const PlanData& plan, int low_bits) {
    std::vector<Phase> phases(plan.num_layers + 1);
    const int high_bits = std::max(plan.num_qubits - low_bits, 0);
    for (std::size_t r = 0; r < plan.runs.size(); ++r) {
        Phase &before = phases[plan.runs[r].layer], &after = phases[plan.runs[r].layer + 1];
        if (before.first_in == before.end_in) before.first_in = static_cast<int>(r);
        before.end_in = static_cast<int>(r) + 1;
        if (after.first_out == after.end_out) after.first_out = static_cast<int>(r);
        after.end_out = static_cast<int>(r) + 1;
        if (!plan.runs[r].single_axis) before.want_sums = after.want_sums = true;
    }
    for (const auto& step : plan.map_steps) {
        Phase& phase = phases[step.layer + 1];
        phase.identity = phase.first_out == phase.end_out;
        for (int r = phase.first_in; r < phase.end_in; ++r)
            phase.identity = phase.identity && is_about_y(plan.runs[r], plan.leaves.data());
    }
    TableCache cache;
    std::size_t next = 0;
    for (std::size_t k = 0; k < phases.size(); ++k) {
        Phase& phase = phases[k];
        std::vector<int> constant_low, constant_high;
        for (; next < plan.terms.size() && plan.terms[next].phase == static_cast<int>(k); ++next) {
            const Term& term = plan.terms[next];
            const index_t support = term.care | term.sign;
            const int index = static_cast<int>(next);
            if (!support) continue;
            phase.identity = false;
            if (term.column >= 0) phase.want_terms = phase.want_sums = true;
            if (is_few_body(term)) {
                add_few_body(phase, index, term, low_bits);
                if (term.column >= 0 && bit_count(support) == 2) phase.want_pairs = true;
            } else if (term.column < 0 && support >> low_bits == 0) {
                constant_low.push_back(index);
            } else if (term.column < 0 && (support & ((index_t(1) << low_bits) - 1)) == 0) {
                constant_high.push_back(index);
            } else {
                add_many_body(phase, index, term, low_bits);
                if (term.column >= 0) phase.want_many = true;
            }
        }
        std::stable_sort(phase.one_body.begin(), phase.one_body.end(),
                         [](const OneBody& a, const OneBody& b) { return a.bit < b.bit; });
        phase.constant_low = find_constants(cache, plan, phase.low_pairs, constant_low, 0, low_bits);
        phase.constant_high = find_constants(cache, plan, phase.high_pairs, constant_high, low_bits, high_bits);
        std::set<int> bits;
        for (const auto& pair : phase.cross_pairs) bits.insert(pair.high - low_bits);
        for (const auto& many : phase.many_body)
            if (many.has_low)
                for (int b = 0; b < high_bits; ++b)
                    if ((many.high_care | many.high_sign) >> b & 1) bits.insert(b);
        choose_whole(plan, high_bits, phase);
        // All variants are stored if they are few and far fewer than the blocks; else each block computes its table.
        const int count = static_cast<int>(bits.size());
        phase.per_block = !phase.whole && count > 2 && (count > 5 || count + 3 > high_bits);
        if (!phase.per_block && !phase.whole) phase.variant_bits.assign(bits.begin(), bits.end());
    }
    return phases;
}

std::vector<ColumnSlope> gradients_of_first_phase(const PlanData& plan) {
    std::map<int, double> slopes;
    for (const Term& term : plan.terms) {
        if (term.phase > 0) break;
        const double g = generator(term.care, term.value, term.sign, 0);
        if (term.column >= 0) slopes[term.column] += term.coefficient * (g - mean_of(term));
    }
    std::vector<ColumnSlope> list;
    for (const auto& [column, slope] : slopes) list.push_back({column, slope});
    return list;
}

double AffinePhase::at(const double* columns) const {
    double phase = constant;
    for (const auto& part : angles) phase = add_angle(phase, part.coefficient * columns[part.column] + part.offset);
    return phase;
}

AffinePhase phase_of_terms(const PlanData& plan, bool without_first) {
    AffinePhase phase;
    // Angles that differ by powers of 2 become one multiple of one angle. The product of an angle and a multiple such
    // as 5 would be rounded, so the multiple is cut into powers of 2 again.
    std::map<std::tuple<int, double, double>, double> multiples;  // by column, coefficient from 1 to 2, and offset
    auto add = [&](const Term& term, double factor) {             // factor is 0 or a power of 2, with a sign
        if (term.column < 0 || factor * term.coefficient == 0) {
            phase.constant = add_angle(phase.constant, factor * term.offset);
            return;
        }
        const double power = std::copysign(std::ldexp(1.0, std::ilogb(term.coefficient)), term.coefficient);
        multiples[{term.column, term.coefficient / power, term.offset / power}] += factor * power;
    };
    for (const Term& term : plan.terms) {
        const bool lacks_g0 = is_few_body(term) || (without_first && term.phase == 0);
        if (lacks_g0) add(term, -0.5 * generator(term.care, term.value, term.sign, 0));
        add(term, 0.5 * mean_of(term));
    }
    for (const auto& [angle, multiple] : multiples) {
        const auto [column, coefficient, offset] = angle;
        int exponent;
        auto bits = static_cast<std::uint64_t>(std::ldexp(std::frexp(std::abs(multiple), &exponent), 53));
        for (; bits; bits &= bits - 1) {
            const double power = std::copysign(std::ldexp(1.0, exponent - 53 + lowest_bit(bits)), multiple);
            phase.angles.push_back({column, coefficient * power, offset * power});
        }
    }
    return phase;
}

}  // namespace qf

// SPDX-License-Identifier: Apache-2.0
//
// Tables of phases from bound values, and gradients of terms from sums of p.
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

// Replace u[i] by the product over m of u[m]^((-1)^popcount(i & m)), for numbers u of modulus 1 with the real and
// imaginary parts re and im [size].
void walsh_product(double* re, double* im, std::size_t size) {
    for (std::size_t step = 1; step < size; step *= 2)
        for (std::size_t i = 0; i < size; i += 2 * step)
            for (std::size_t j = i; j < i + step; ++j) {
                const double ar = re[j], ai = im[j], br = re[j + step], bi = im[j + step];
                const double rr = ar * br, ii = ai * bi, ri = ar * bi, ir = ai * br;
                re[j] = rr - ii;
                im[j] = ir + ri;
                re[j + step] = rr + ii;
                im[j + step] = ir - ri;
            }
}

// Multiply one number by a factor. The array holds all real parts, then all imaginary parts.
void multiply_at(std::vector<double>& numbers, index_t index, Complex factor) {
    double &re = numbers[index], &im = numbers[numbers.size() / 2 + index];
    const Complex product = Complex{re, im} * factor;
    re = product.re;
    im = product.im;
}

void multiply_pair(Complex* table, std::size_t size, int bit0, int bit1, Complex factor) {
    const index_t mask = index_t(1) << bit0 | index_t(1) << bit1;
    for (index_t i = mask; i < size; i = (i + 1) | mask) table[i] = table[i] * factor;
}

Complex generator_factor(Complex unit, int g) {
    return g == 0 ? Complex{} : g > 0 ? unit : conj(unit);
}

Complex pair_factor(const Pair& pair, const std::vector<Complex>& term) {
    Complex factor;
    for (const auto& source : pair.sources) factor = factor * power(term[source.term], source.exponent);
    return factor;
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

std::vector<Complex> values_of(const PlanData& plan, const ConstantTable& table) {
    const std::size_t size = std::size_t(1) << table.bits;
    const int shift = table.shift;
    std::vector<Complex> values(size);
    auto unit = [&](int t) { return Complex{std::cos(plan.terms[t].offset / 2), -std::sin(plan.terms[t].offset / 2)}; };
    for (const auto& pair : table.pairs) {
        Complex factor;
        for (const auto& source : pair.sources) factor = factor * power(unit(source.term), source.exponent);
        multiply_pair(values.data(), size, pair.low - shift, pair.high - shift, factor);
    }
    // If there are more Z strings than bits, one Walsh transform computes the product of all strings.
    const auto is_string = [&](int t) { return !(plan.terms[t].care >> shift); };
    const bool by_walsh = std::count_if(table.many_terms.begin(), table.many_terms.end(), is_string) > table.bits;
    std::vector<double> strings(by_walsh ? 2 * size : 0, 0.0);
    if (by_walsh) std::fill_n(strings.begin(), size, 1.0);
    for (const int t : table.many_terms) {
        const index_t care = plan.terms[t].care >> shift, value = plan.terms[t].value >> shift;
        const index_t sign = plan.terms[t].sign >> shift;
        const Complex factor = unit(t);
        if (by_walsh && !care)
            multiply_at(strings, sign, factor);
        else
            for (index_t i = 0; i < size; ++i)
                values[i] = values[i] * generator_factor(factor, generator(care, value, sign, i));
    }
    if (by_walsh) {
        walsh_product(strings.data(), strings.data() + size, size);
        for (index_t i = 0; i < size; ++i) values[i] = values[i] * Complex{strings[i], strings[size + i]};
    }
    return values;
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
            if (term.column >= 0) phase.want_sums = true;
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

std::vector<Phase> with_constants(const PlanData& plan, int low_bits, std::vector<Phase> phases) {
    const index_t low_mask = (index_t(1) << low_bits) - 1;
    std::map<const ConstantTable*, std::shared_ptr<const ConstantTable>> made;
    for (auto& phase : phases) {
        for (auto* table : {&phase.constant_low, &phase.constant_high}) {
            if (!*table) continue;
            auto& full = made[table->get()];
            if (!full) {
                auto copy = std::make_shared<ConstantTable>(**table);
                copy->values = values_of(plan, *copy);
                full = std::move(copy);
            }
            *table = full;
        }
        for (auto& many : phase.many_body) {
            if (many.by_walsh) continue;
            const Term& term = plan.terms[many.term];
            many.low.resize(low_mask + 1);
            for (index_t l = 0; l <= low_mask; ++l)
                many.low[l] = generator(term.care & low_mask, term.value & low_mask, term.sign & low_mask, l);
        }
    }
    return phases;
}

TableSizes table_sizes(const Phase& phase, int num_qubits, int low_bits) {
    const int high_bits = std::max(num_qubits - low_bits, 0);
    const std::size_t low = std::size_t(1) << low_bits;
    TableSizes sizes;
    sizes.low = 2 * low * phase.num_variants();
    if (high_bits > 0) sizes.high = std::size_t(2) << high_bits;
    if (!phase.per_block) return sizes;
    sizes.linear = (std::size_t(2) << high_bits) * low_bits;
    for (const auto& many : phase.many_body) sizes.cross += many.has_low && many.has_high ? low : 0;
    return sizes;
}

template <class T>
void allocate(const Phase& phase, int num_qubits, int low_bits, PhaseTables<T>& tables) {
    const TableSizes sizes = table_sizes(phase, num_qubits, low_bits);
    tables.low = Buffer<T>(sizes.low);
    tables.high = Buffer<T>(sizes.high);
    tables.linear = Buffer<T>(sizes.linear);
    for (const auto& many : phase.many_body) {
        if (!sizes.cross || !many.has_low || !many.has_high) continue;
        Buffer<T> values(many.low.size());
        for (std::size_t l = 0; l < values.size(); ++l) values[l] = static_cast<T>(many.low[l]);
        tables.cross.push_back({values.data(), many.high_care, many.high_value, many.high_sign, T(0), T(0)});
        tables.cross_low.push_back(std::move(values));
    }
}

template <class T>
Diagonal<T> PhaseTables<T>::view(const Phase& phase, int low_bits, T scale) const {
    Diagonal<T> d{};
    d.low_bits = low_bits;
    d.low_re = low.data();
    d.low_im = low.data() + low.size() / 2;
    if (high) {
        d.high_re = high.data();
        d.high_im = high.data() + high.size() / 2;
    }
    d.scale = scale;
    d.num_variant_bits = static_cast<int>(phase.variant_bits.size());
    for (int b = 0; b < d.num_variant_bits; ++b) d.variant_bit[b] = phase.variant_bits[b];
    if (linear) {
        d.linear_re = linear.data();
        d.linear_im = linear.data() + linear.size() / 2;
        d.cross = cross.data();
        d.num_cross = static_cast<int>(cross.size());
    }
    return d;
}

namespace {

// Compute the factor of |1> of every bit: from the runs before and after the phase, from terms on one qubit, and from
// the one-qubit parts of terms on two qubits.
void fill_factors(const PlanData& plan, const Phase& phase, const Bound& bound, std::vector<Complex>& factor) {
    factor.assign(plan.num_qubits, Complex{});
    for (int r = phase.first_out; r < phase.end_out; ++r)
        factor[plan.runs[r].bit] = factor[plan.runs[r].bit] * bound.rotor[r].out;
    for (int r = phase.first_in; r < phase.end_in; ++r)
        factor[plan.runs[r].bit] = factor[plan.runs[r].bit] * bound.rotor[r].in;
    for (const auto& one : phase.one_body)
        factor[one.bit] = factor[one.bit] * power(bound.term[one.term], one.exponent);
}

// Compute the part that all versions of the low table share: constants, pairs and many-body terms inside the low bits.
// Return false if all its entries are 1.
bool fill_base(const Phase& phase, int low_bits, const Bound& bound, std::vector<Complex>& base) {
    bool any = static_cast<bool>(phase.constant_low);
    for (const auto& pair : phase.low_pairs) any = any || !pair.constant;
    for (const auto& many : phase.many_body) any = any || (many.has_low && !many.has_high);
    if (!any) return false;
    const std::size_t low = std::size_t(1) << low_bits;
    base.assign(low, Complex{});
    if (phase.constant_low)
        std::copy(phase.constant_low->values.begin(), phase.constant_low->values.end(), base.begin());
    for (const auto& pair : phase.low_pairs)
        if (!pair.constant) multiply_pair(base.data(), low, pair.low, pair.high, pair_factor(pair, bound.term));
    for (const auto& many : phase.many_body)
        if (many.has_low && !many.has_high)
            for (std::size_t l = 0; l < low; ++l)
                base[l] = base[l] * generator_factor(bound.term[many.term], static_cast<int>(many.low[l]));
    return true;
}

// linear[h][b] = factor[b] * product of the factors of the pairs of low bit b and a high bit that is set in h. The
// table is computed by doubling over the bits of h.
template <class T>
void fill_linear(const Phase& phase, int low_bits, int high_bits, const Bound& bound,
                 const std::vector<Complex>& factor, std::vector<Complex>& linear, PhaseTables<T>& tables) {
    const std::size_t half = tables.linear.size() / 2, num_high = std::size_t(1) << high_bits;
    linear.resize(num_high);
    std::vector<Complex> pair_by_bit(high_bits);
    for (int b = 0; b < low_bits; ++b) {
        std::fill(pair_by_bit.begin(), pair_by_bit.end(), Complex{});
        for (const auto& pair : phase.cross_pairs)
            if (pair.low == b) pair_by_bit[pair.high - low_bits] = pair_factor(pair, bound.term);
        linear[0] = factor[b];
        for (int c = 0; c < high_bits; ++c)
            for (std::size_t h = 0; h < std::size_t(1) << c; ++h)
                linear[h + (std::size_t(1) << c)] = linear[h] * pair_by_bit[c];
        for (std::size_t h = 0; h < num_high; ++h) {
            tables.linear[h * low_bits + b] = static_cast<T>(linear[h].re);
            tables.linear[half + h * low_bits + b] = static_cast<T>(linear[h].im);
        }
    }
    std::size_t t = 0;
    for (const auto& many : phase.many_body)
        if (many.has_low && many.has_high) {
            tables.cross[t].cos_minus_one = static_cast<T>(bound.term[many.term].re - 1);
            tables.cross[t++].sin = static_cast<T>(-bound.term[many.term].im);
        }
}

// Compute every version of the low table. base holds all real parts, then all imaginary parts of the shared part, or is
// null.
template <class T>
void fill_variants(const Phase& phase, int bits, int low_bits, const Bound& bound, const std::vector<Complex>& factor,
                   const Sweeps<T>& sweeps, const T* base, std::vector<double>& strings, PhaseTables<T>& tables) {
    const std::size_t low = std::size_t(1) << low_bits, half = tables.low.size() / 2;
    const std::size_t size = low * phase.num_variants();
    if (phase.whole) {
        strings.assign(2 * size, 0.0);
        std::fill_n(strings.begin(), size, 1.0);
        for (const auto& many : phase.many_body) {
            if (!many.by_walsh) continue;
            multiply_at(strings, many.sign, bound.term[many.term]);
        }
        walsh_product(strings.data(), strings.data() + size, size);
    }
    T factor_re[MAX_LOW_BITS] = {}, factor_im[MAX_LOW_BITS] = {};
    for (index_t variant = 0; variant < static_cast<index_t>(phase.num_variants()); ++variant) {
        index_t h = 0;
        for (std::size_t b = 0; b < phase.variant_bits.size(); ++b) h |= (variant >> b & 1) << phase.variant_bits[b];
        for (int b = 0; b < bits; ++b) {
            Complex f = factor[b];
            for (const auto& pair : phase.cross_pairs)
                if (pair.low == b && (h >> (pair.high - low_bits) & 1)) f = f * pair_factor(pair, bound.term);
            factor_re[b] = static_cast<T>(f.re);
            factor_im[b] = static_cast<T>(f.im);
        }
        T *re = tables.low.data() + variant * low, *im = re + half;
        sweeps.linear_table(factor_re, factor_im, bits, T(1), base, base ? base + low : nullptr, re, im);
        for (std::size_t l = 0; phase.whole && l < low; ++l) {
            const double f_re = strings[variant * low + l], f_im = strings[size + variant * low + l];
            const double r = re[l], i = im[l];
            re[l] = static_cast<T>(r * f_re - i * f_im);
            im[l] = static_cast<T>(r * f_im + i * f_re);
        }
        for (const auto& many : phase.many_body) {
            if (!many.has_low || !many.has_high || many.by_walsh) continue;
            const int g_high = generator(many.high_care, many.high_value, many.high_sign, h);
            if (!g_high) continue;
            for (std::size_t l = 0; l < low; ++l) {
                const Complex f = generator_factor(bound.term[many.term], g_high * static_cast<int>(many.low[l]));
                const T r = re[l], i = im[l];
                re[l] = static_cast<T>(r * f.re - i * f.im);
                im[l] = static_cast<T>(r * f.im + i * f.re);
            }
        }
    }
}

template <class T>
void fill_high(const Phase& phase, int low_bits, int high_bits, const Bound& bound, const std::vector<Complex>& factor,
               std::vector<Complex>& high, PhaseTables<T>& tables) {
    const std::size_t num_high = std::size_t(1) << high_bits;
    high.resize(num_high);
    high[0] = Complex{};
    for (int c = 0; c < high_bits; ++c)
        for (std::size_t h = 0; h < std::size_t(1) << c; ++h)
            high[h + (std::size_t(1) << c)] = high[h] * factor[c + low_bits];
    if (phase.constant_high)
        for (std::size_t h = 0; h < num_high; ++h) high[h] = high[h] * phase.constant_high->values[h];
    for (const auto& pair : phase.high_pairs)
        if (!pair.constant)
            multiply_pair(high.data(), num_high, pair.low - low_bits, pair.high - low_bits,
                          pair_factor(pair, bound.term));
    for (const auto& many : phase.many_body)
        if (!many.has_low)
            for (index_t h = 0; h < num_high; ++h)
                high[h] = high[h] * generator_factor(bound.term[many.term],
                                                     generator(many.high_care, many.high_value, many.high_sign, h));
    for (std::size_t h = 0; h < num_high; ++h) {
        tables.high[h] = static_cast<T>(high[h].re);
        tables.high[num_high + h] = static_cast<T>(high[h].im);
    }
}

}  // namespace

template <class T>
void build_tables(const PlanData& plan, const Phase& phase, int low_bits, const Bound& bound, const Sweeps<T>& sweeps,
                  PhaseScratch<T>& scratch, PhaseTables<T>& tables) {
    const int n = plan.num_qubits, high_bits = std::max(n - low_bits, 0);
    const std::size_t low = std::size_t(1) << low_bits;
    fill_factors(plan, phase, bound, scratch.factor);
    const bool has_base = fill_base(phase, low_bits, bound, scratch.values);
    if (!phase.per_block && has_base && scratch.base.size() < 2 * low) scratch.base = Buffer<T>(2 * low);
    T* const base = phase.per_block ? tables.low.data() : has_base ? scratch.base.data() : nullptr;
    if (base)
        for (std::size_t l = 0; l < low; ++l) {
            base[l] = has_base ? static_cast<T>(scratch.values[l].re) : T(1);
            base[low + l] = has_base ? static_cast<T>(scratch.values[l].im) : T(0);
        }
    if (phase.per_block)
        fill_linear(phase, low_bits, high_bits, bound, scratch.factor, scratch.values, tables);
    else
        fill_variants(phase, std::min(n, low_bits), low_bits, bound, scratch.factor, sweeps, base, scratch.strings,
                      tables);
    if (high_bits > 0) fill_high(phase, low_bits, high_bits, bound, scratch.factor, scratch.values, tables);
}

namespace {

// Reduces the raw sums of p of one phase over one chunk to the sums of PhaseGradient. Raw sums are given for each l
// (and each version of the low table) and for each h. Each step of reduce() reads raw sums only and writes its own
// outputs.
template <class T>
class Reduction {
  public:
    Reduction(const Phase& phase, int num_qubits, int low_bits, const T* low, const ChunkSums& chunk,
              std::vector<double>& scratch, PhaseGradient out)
        : phase_(phase),
          num_qubits_(num_qubits),
          low_bits_(low_bits),
          bits_(std::min(num_qubits, low_bits)),
          high_bits_(std::max(num_qubits - low_bits, 0)),
          size_(std::size_t(1) << low_bits),
          blocks_(chunk.end - chunk.begin),
          first_(phase.whole ? chunk.begin : 0),
          end_(phase.whole ? chunk.end : static_cast<index_t>(phase.num_variants())),
          low_(low),
          chunk_(chunk),
          scratch_(scratch),
          out_(out) {}

    void reduce(const Sweeps<T>& sweeps) {
        std::fill_n(out_.z, num_qubits_, 0.0);
        if (phase_.want_pairs)
            std::fill_n(out_.pair, phase_.low_pairs.size() + phase_.high_pairs.size() + phase_.cross_pairs.size(), 0.0);
        const double everything = sum_low_bits(sweeps);
        if (phase_.want_pairs && !phase_.low_pairs.empty()) sum_low_pairs();
        if (high_bits_ > 0) sum_high_bits_and_pairs();
        if (phase_.want_pairs && phase_.per_block) sum_cross_pairs_of_blocks();
        if (phase_.want_many) sum_many_body(everything);
    }

  private:
    double* cross_pairs() const { return out_.pair + phase_.low_pairs.size() + phase_.high_pairs.size(); }

    // Return the bits of h that select a version of the low table.
    index_t high_of(index_t variant) const {
        index_t h = 0;
        for (std::size_t b = 0; b < phase_.variant_bits.size(); ++b)
            h |= index_t(variant >> b & 1) << phase_.variant_bits[b];
        return h;
    }

    // Return the Walsh sum over h inside the chunk for a mask of h. The bits of h above the chunk give a sign.
    double high_sum(const std::vector<double>& walsh, index_t mask) const {
        const double sum = walsh[mask & (blocks_ - 1)];
        return parity(chunk_.begin & mask) ? -sum : sum;
    }

    // Sum Z of the low bits, and of pairs of a low bit and a bit that selects the version. Return the sum of p.
    double sum_low_bits(const Sweeps<T>& sweeps) {
        double z_of_variant[64];
        double everything = 0;
        for (index_t v = first_; v < end_; ++v) {
            everything += sweeps.z_sums(low_ + v * size_, bits_, z_of_variant);
            for (int b = 0; b < bits_; ++b) out_.z[b] += z_of_variant[b];
            if (!phase_.want_pairs || phase_.per_block) continue;
            for (std::size_t j = 0; j < phase_.cross_pairs.size(); ++j) {
                const Pair& pair = phase_.cross_pairs[j];
                const auto position =
                    std::find(phase_.variant_bits.begin(), phase_.variant_bits.end(), pair.high - low_bits_);
                const int bit = static_cast<int>(position - phase_.variant_bits.begin());
                cross_pairs()[j] += (v >> bit & 1 ? -1 : 1) * z_of_variant[pair.low];
            }
        }
        return everything;
    }

    void sum_low_pairs() {
        scratch_.assign(size_, 0.0);
        for (index_t v = first_; v < end_; ++v)
            for (std::size_t l = 0; l < size_; ++l) scratch_[l] += low_[v * size_ + l];
        walsh_hadamard(scratch_.data(), std::size_t(1) << bits_);
        for (std::size_t j = 0; j < phase_.low_pairs.size(); ++j)
            out_.pair[j] = scratch_[index_t(1) << phase_.low_pairs[j].low | index_t(1) << phase_.low_pairs[j].high];
    }

    void sum_high_bits_and_pairs() {
        scratch_.assign(chunk_.total + chunk_.begin, chunk_.total + chunk_.end);
        walsh_hadamard(scratch_.data(), blocks_);
        for (int b = 0; b < high_bits_; ++b) out_.z[low_bits_ + b] = high_sum(scratch_, index_t(1) << b);
        if (!phase_.want_pairs) return;
        for (std::size_t j = 0; j < phase_.high_pairs.size(); ++j) {
            const Pair& pair = phase_.high_pairs[j];
            const index_t mask = (index_t(1) << pair.low | index_t(1) << pair.high) >> low_bits_;
            out_.pair[phase_.low_pairs.size() + j] = high_sum(scratch_, mask);
        }
    }

    // Sum pairs of a low bit b and a high bit if each block computes its own table: Walsh sums over h of the Z_b sums.
    void sum_cross_pairs_of_blocks() {
        for (int b = 0; b < bits_; ++b) {
            bool made = false;
            for (std::size_t j = 0; j < phase_.cross_pairs.size(); ++j) {
                const Pair& pair = phase_.cross_pairs[j];
                if (pair.low != b) continue;
                if (!made) {
                    scratch_.resize(blocks_);
                    for (std::size_t h = 0; h < blocks_; ++h)
                        scratch_[h] = chunk_.linear[(chunk_.begin + h) * low_bits_ + b];
                    walsh_hadamard(scratch_.data(), blocks_);
                    made = true;
                }
                cross_pairs()[j] = high_sum(scratch_, index_t(1) << (pair.high - low_bits_));
            }
        }
    }

    void sum_many_body(double everything) {
        if (phase_.whole) {
            scratch_.assign(low_ + chunk_.begin * size_, low_ + chunk_.end * size_);
            walsh_hadamard(scratch_.data(), scratch_.size());
        }
        int num_cross = 0, cross = 0;
        for (const auto& many : phase_.many_body) num_cross += many.has_low && many.has_high;
        for (std::size_t m = 0; m < phase_.many_body.size(); ++m) {
            const ManyBody& many = phase_.many_body[m];
            double sum = 0;
            if (many.by_walsh)
                sum = sum_of_string(many);
            else if (!many.has_low)
                sum = sum_over_high(many, chunk_.total, 1);
            else if (many.has_high && phase_.per_block)
                sum = sum_over_high(many, chunk_.cross + cross++, num_cross);
            else
                sum = sum_over_variants(many);
            out_.many[m] = sum - many.mean * everything;
        }
    }

    // scratch_ must hold the Walsh sums over the chunk.
    double sum_of_string(const ManyBody& many) const {
        const double sum = scratch_[many.sign & (blocks_ * size_ - 1)];
        return parity((chunk_.begin << low_bits_) & many.sign) ? -sum : sum;
    }

    // Return the sum over h of g_high(h) sums[h * stride].
    double sum_over_high(const ManyBody& many, const double* sums, std::size_t stride) const {
        double sum = 0;
        for (index_t h = chunk_.begin; h < chunk_.end; ++h)
            sum += generator(many.high_care, many.high_value, many.high_sign, h) * sums[h * stride];
        return sum;
    }

    double sum_over_variants(const ManyBody& many) const {
        double sum = 0;
        for (index_t v = first_; v < end_; ++v) {
            const int g = many.has_high ? generator(many.high_care, many.high_value, many.high_sign, high_of(v)) : 1;
            for (std::size_t l = 0; g && l < size_; ++l) sum += g * many.low[l] * low_[v * size_ + l];
        }
        return sum;
    }

    const Phase& phase_;
    const int num_qubits_, low_bits_, bits_, high_bits_;
    const std::size_t size_, blocks_;
    const index_t first_, end_;  // range of versions of the low table; in a whole phase, block h has version h
    const T* const low_;
    const ChunkSums& chunk_;
    std::vector<double>& scratch_;
    const PhaseGradient out_;
};

}  // namespace

template <class T>
void reduce_sums(const Phase& phase, int num_qubits, int low_bits, const Sweeps<T>& sweeps, const T* low,
                 const ChunkSums& chunk, std::vector<double>& scratch, PhaseGradient out) {
    Reduction<T>(phase, num_qubits, low_bits, low, chunk, scratch, out).reduce(sweeps);
}

void add_term_gradients(const PlanData& plan, const Phase& phase, const PhaseGradient& sums, double* gradient) {
    auto add = [&](int index, double value) {
        const Term& term = plan.terms[index];
        if (term.column >= 0) gradient[term.column] += term.coefficient * value;
    };
    // A generator g0 + exponent x on one qubit is a constant - (exponent/2) Z, because x = (1 - Z)/2.
    for (const auto& one : phase.one_body) add(one.term, -0.5 * one.exponent * sums.z[one.bit]);
    if (phase.want_pairs) {
        std::size_t j = 0;
        for (const auto* pairs : {&phase.low_pairs, &phase.high_pairs, &phase.cross_pairs})
            for (const auto& pair : *pairs) {
                for (const auto& source : pair.sources) {
                    // x_a x_b = (1 - Z_a - Z_b + Z_a Z_b)/4.
                    const double quarter = 0.25 * source.exponent;
                    add(source.term, quarter * (sums.pair[j] - sums.z[pair.low] - sums.z[pair.high]));
                }
                ++j;
            }
    }
    if (phase.want_many)
        for (std::size_t m = 0; m < phase.many_body.size(); ++m) add(phase.many_body[m].term, sums.many[m]);
}

namespace {

// Return a list with one slope for each column that occurs.
std::vector<ColumnSlope> add_up(const std::map<int, double>& slopes) {
    std::vector<ColumnSlope> list;
    for (const auto& [column, slope] : slopes) list.push_back({column, slope});
    return list;
}

}  // namespace

std::vector<ColumnSlope> gradients_of_first_phase(const PlanData& plan) {
    std::map<int, double> slopes;
    for (const Term& term : plan.terms) {
        if (term.phase > 0) break;
        const double g = generator(term.care, term.value, term.sign, 0);
        if (term.column >= 0) slopes[term.column] += term.coefficient * (g - mean_of(term));
    }
    return add_up(slopes);
}

double AffinePhase::at(const double* columns) const {
    double phase = offset;
    for (const auto& part : slopes) phase += part.slope * columns[part.column];
    return phase;
}

AffinePhase phase_of_terms(const PlanData& plan, bool without_first) {
    AffinePhase phase;
    std::map<int, double> slopes;
    for (const Term& term : plan.terms) {
        const bool lacks_g0 = is_few_body(term) || (without_first && term.phase == 0);
        const double g0 = lacks_g0 ? generator(term.care, term.value, term.sign, 0) : 0;
        const double factor = -0.5 * (g0 - mean_of(term));
        phase.offset += factor * term.offset;
        if (term.column >= 0 && factor != 0) slopes[term.column] += factor * term.coefficient;
    }
    phase.slopes = add_up(slopes);
    return phase;
}

#define QF_INSTANTIATE(T)                                                                              \
    template struct PhaseTables<T>;                                                                    \
    template void allocate<T>(const Phase&, int, int, PhaseTables<T>&);                                \
    template void build_tables<T>(const PlanData&, const Phase&, int, const Bound&, const Sweeps<T>&,  \
                                  PhaseScratch<T>&, PhaseTables<T>&);                                  \
    template void reduce_sums<T>(const Phase&, int, int, const Sweeps<T>&, const T*, const ChunkSums&, \
                                 std::vector<double>&, PhaseGradient);
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

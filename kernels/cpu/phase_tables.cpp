// SPDX-License-Identifier: Apache-2.0
//
// The tables of phases: tables of constants, once for each plan, and tables of the bound values of a row.
#include "cpu/phase_tables.hpp"

#include <algorithm>
#include <map>

#include "shared/masks.h"
#include "shared/tuning.h"

namespace qf {
namespace {

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
std::vector<Phase> with_constants(const PlanData& plan, int low_bits, std::vector<Phase> phases, bool with_low_parts) {
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
            if (many.by_walsh || !with_low_parts) continue;
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
    for (int r = phase.first_out; r < phase.end_out; ++r) factor[plan.runs[r].bit] = bound.rotor(r).out;
    for (int r = phase.first_in; r < phase.end_in; ++r)
        factor[plan.runs[r].bit] = factor[plan.runs[r].bit] * bound.rotor(r).in;
    for (const auto& one : phase.one_body)
        factor[one.bit] = factor[one.bit] * power(bound.term[one.term], one.exponent);
}

// Say whether a pair or a many-body term inside the low bits depends on a column.
bool has_low_terms(const Phase& phase) {
    for (const auto& pair : phase.low_pairs)
        if (!pair.constant) return true;
    for (const auto& many : phase.many_body)
        if (many.has_low && !many.has_high) return true;
    return false;
}

// Compute the part that all versions of the low table share: constants, pairs and many-body terms inside the low bits.
void fill_base(const Phase& phase, int low_bits, const Bound& bound, std::vector<Complex>& base) {
    const std::size_t low = std::size_t(1) << low_bits;
    if (phase.constant_low)
        base = phase.constant_low->values;
    else
        base.assign(low, Complex{});
    for (const auto& pair : phase.low_pairs)
        if (!pair.constant) multiply_pair(base.data(), low, pair.low, pair.high, pair_factor(pair, bound.term));
    for (const auto& many : phase.many_body)
        if (many.has_low && !many.has_high)
            for (std::size_t l = 0; l < low; ++l)
                base[l] = base[l] * generator_factor(bound.term[many.term], static_cast<int>(many.low[l]));
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
    // Consecutive phases mostly have equal constants, and phases of later rows have the same ones again.
    const bool has_terms = has_low_terms(phase), has_base = has_terms || phase.constant_low;
    const ConstantTable* const constants = has_terms || phase.per_block ? nullptr : phase.constant_low.get();
    if (!phase.per_block && has_base && scratch.base.size() < 2 * low) scratch.base = Buffer<T>(2 * low);
    T* const base = phase.per_block ? tables.low.data() : has_base ? scratch.base.data() : nullptr;
    if (base && (!constants || scratch.base_of != constants)) {
        if (has_base) fill_base(phase, low_bits, bound, scratch.values);
        for (std::size_t l = 0; l < low; ++l) {
            base[l] = has_base ? static_cast<T>(scratch.values[l].re) : T(1);
            base[low + l] = has_base ? static_cast<T>(scratch.values[l].im) : T(0);
        }
        if (base == scratch.base.data()) scratch.base_of = constants;
    }
    if (phase.per_block)
        fill_linear(phase, low_bits, high_bits, bound, scratch.factor, scratch.values, tables);
    else
        fill_variants(phase, std::min(n, low_bits), low_bits, bound, scratch.factor, sweeps, base, scratch.strings,
                      tables);
    if (high_bits > 0) fill_high(phase, low_bits, high_bits, bound, scratch.factor, scratch.values, tables);
}

template struct PhaseTables<float>;
template struct PhaseTables<double>;
#define QF_INSTANTIATE(T)                                                                             \
    template void allocate<T>(const Phase&, int, int, PhaseTables<T>&);                               \
    template void build_tables<T>(const PlanData&, const Phase&, int, const Bound&, const Sweeps<T>&, \
                                  PhaseScratch<T>&, PhaseTables<T>&);
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf

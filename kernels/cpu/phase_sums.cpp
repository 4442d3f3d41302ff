// SPDX-License-Identifier: Apache-2.0
//
// The sums of p over a state: the sums over each phase that gradients need, and the gradients of terms from these sums.
#include "cpu/phase_sums.hpp"

#include <algorithm>
#include <utility>

#include "shared/masks.h"

namespace qf {
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
          blocks_(chunk.blocks.count),
          first_(phase.whole ? chunk.blocks.number(0) : 0),
          end_(phase.whole ? first_ + blocks_ : static_cast<index_t>(phase.num_variants())),
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

    // Return the Walsh sum over h inside the chunk for a mask of h. The bits of h that the chunk fixes give a sign.
    double high_sum(const std::vector<double>& walsh, index_t mask) const {
        const double sum = walsh[chunk_.blocks.within(mask)];
        return parity(chunk_.blocks.outside(mask)) ? -sum : sum;
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
        scratch_.resize(blocks_);
        for (index_t j = 0; j < blocks_; ++j) scratch_[j] = chunk_.total[chunk_.blocks.number(j)];
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
                    for (index_t j = 0; j < blocks_; ++j)
                        scratch_[j] = chunk_.linear[chunk_.blocks.number(j) * low_bits_ + b];
                    walsh_hadamard(scratch_.data(), blocks_);
                    made = true;
                }
                cross_pairs()[j] = high_sum(scratch_, index_t(1) << (pair.high - low_bits_));
            }
        }
    }

    void sum_many_body(double everything) {
        if (phase_.whole) {
            scratch_.assign(low_ + first_ * size_, low_ + end_ * size_);
            walsh_hadamard(scratch_.data(), scratch_.size());
        }
        const double* cross = chunk_.cross;
        for (std::size_t m = 0; m < phase_.many_body.size(); ++m) {
            const ManyBody& many = phase_.many_body[m];
            double sum = 0;
            if (many.by_walsh)
                sum = sum_of_string(many);
            else if (!many.has_low)
                sum = sum_over_high(many, chunk_.total);
            else if (many.has_high && phase_.per_block)
                sum = sum_over_high(many, std::exchange(cross, cross + (index_t(1) << high_bits_)));
            else
                sum = sum_over_variants(many);
            out_.many[m] = sum - many.mean * everything;
        }
    }

    // scratch_ must hold the Walsh sums over the chunk.
    double sum_of_string(const ManyBody& many) const {
        const double sum = scratch_[many.sign & (blocks_ * size_ - 1)];
        return parity((first_ << low_bits_) & many.sign) ? -sum : sum;
    }

    // Return the sum over h of g_high(h) sums[h].
    double sum_over_high(const ManyBody& many, const double* sums) const {
        double sum = 0;
        for (index_t j = 0; j < blocks_; ++j) {
            const index_t h = chunk_.blocks.number(j);
            sum += generator(many.high_care, many.high_value, many.high_sign, h) * sums[h];
        }
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
    // The range of versions of the low table. In a whole phase, block h has version h, and the blocks are neighbours.
    const index_t first_, end_;
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
template void reduce_sums<float>(const Phase&, int, int, const Sweeps<float>&, const float*, const ChunkSums&,
                                 std::vector<double>&, PhaseGradient);
template void reduce_sums<double>(const Phase&, int, int, const Sweeps<double>&, const double*, const ChunkSums&,
                                  std::vector<double>&, PhaseGradient);

}  // namespace qf

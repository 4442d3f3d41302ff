// SPDX-License-Identifier: Apache-2.0
//
// Draws by inversion: the sums of the probabilities are searched for a uniform number. A guide table holds, for each of
// M equal intervals of [0, 1), an outcome from which the search goes upwards. The intervals of M >= K take fewer than 2
// steps on average, whatever the probabilities are (Chen and Asau, AIIE Transactions 6, 163 (1974)).
//
// Uniform numbers come from Philox4x64-10 (Salmon et al., SC 2011), in the order of numpy.random.Philox with the
// counter {0, 0, stream, 0}. The generator computes the number at any index directly, so it has no state to share.
#include "cpu/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "cpu/runtime/buffer.hpp"
#include "cpu/runtime/team.hpp"

namespace qf {

namespace {

constexpr int block = 64;  // uniform numbers that are made at a time; a multiple of 4

// Nanoseconds on one core (AMD EPYC, Zen 4): a shot, and an outcome with its part of the table. Each thread gets work
// for at least `thread_work` nanoseconds.
constexpr std::int64_t shot_work = 5, outcome_work = 3, thread_work = 50'000;

// A table of more outcomes than this does not fit the second-level cache. All threads then share one table, so that
// tables take little memory, and entries are prefetched: without that, a shot of 20 qubits took 3 times as long.
constexpr std::int64_t most_cached_outcomes = 1 << 14;

// A cached table has two guides for each outcome, a larger table has one, and no table has more than 4 for each shot.
constexpr std::int64_t guides_per_shot = 4;

struct Philox {
    std::uint64_t key[2], stream;

    // Write the four words with the indices 4 index .. 4 index + 3.
    void words(std::uint64_t index, std::uint64_t* out) const {
        std::uint64_t c0 = index + 1, c1 = 0, c2 = stream, c3 = 0, k0 = key[0], k1 = key[1];
        for (int round = 0; round < 10; ++round) {
            const auto product0 = static_cast<unsigned __int128>(0xD2E7470EE14C6C93u) * c0;
            const auto product1 = static_cast<unsigned __int128>(0xCA5A826395121157u) * c2;
            c0 = static_cast<std::uint64_t>(product1 >> 64) ^ c1 ^ k0;
            c1 = static_cast<std::uint64_t>(product1);
            c2 = static_cast<std::uint64_t>(product0 >> 64) ^ c3 ^ k1;
            c3 = static_cast<std::uint64_t>(product0);
            k0 += 0x9E3779B97F4A7C15u;
            k1 += 0xBB67AE8584CAA73Bu;
        }
        out[0] = c0;
        out[1] = c1;
        out[2] = c2;
        out[3] = c3;
    }
};

// The sums of the probabilities of one row, with guides.
class Table {
  public:
    Table(std::int64_t num_outcomes, std::int64_t num_shots)
        : num_outcomes_(num_outcomes), num_guides_(guides_for(num_outcomes, num_shots)) {}

    void fill(const double* probabilities) {
        if (!sums_) {
            sums_ = Buffer<double>(num_outcomes_);
            guides_ = Buffer<std::int32_t>(num_guides_ + stores);
        }
        std::int64_t last = 0;  // the last possible outcome
        double sum = 0;
        for (std::int64_t i = 0; i < num_outcomes_; ++i) {
            if (probabilities[i] > 0) last = i;
            sums_[i] = sum += probabilities[i];
        }
        total_ = sum;
        // Guide g is an outcome i whose sum without p_i is at most g total / num_guides. The factor makes this certain
        // in spite of rounding. Several guides are stored at a time; the next outcomes overwrite those that are theirs.
        const double scale = static_cast<double>(num_guides_) / total_ * (1 + 0x1p-50);
        std::int64_t begin = 0;
        for (std::int64_t i = 0; i <= last; ++i) {
            const std::int64_t end = std::min(static_cast<std::int64_t>(sums_[i] * scale) + 1, num_guides_);
            for (int k = 0; k < stores; ++k) guides_[begin + k] = static_cast<std::int32_t>(i);
            for (std::int64_t g = begin + stores; g < end; ++g) guides_[g] = static_cast<std::int32_t>(i);
            begin = end;
        }
        sums_[last] = std::numeric_limits<double>::infinity();  // ends each search, also where u total is total
    }

    bool is_cached() const { return num_outcomes_ <= most_cached_outcomes; }

    // The guide of a uniform number.
    const std::int32_t& guide(double u) const {
        return guides_[static_cast<std::size_t>(u * static_cast<double>(num_guides_))];
    }

    void prefetch(const double* u, int count) const {
        for (int i = 0; i < count; ++i) __builtin_prefetch(&guide(u[i]));
        for (int i = 0; i < count; ++i) __builtin_prefetch(&sums_[guide(u[i])]);
    }

    std::int32_t find(double u) const {
        const double target = u * total_;
        std::int32_t i = guide(u);
        // The first two steps are no branches: the processor cannot predict them.
        i += sums_[i] <= target;
        i += sums_[i] <= target;
        while (sums_[i] <= target) ++i;
        return i;
    }

  private:
    static constexpr int stores = 4;

    // A power of two, so that the product of u and this number is exact.
    static std::int64_t guides_for(std::int64_t num_outcomes, std::int64_t num_shots) {
        const std::int64_t most = num_outcomes <= most_cached_outcomes ? 2 * num_outcomes : num_outcomes;
        std::int64_t count = 1;
        while (count < most && count < guides_per_shot * num_shots) count *= 2;
        return count;
    }

    std::int64_t num_outcomes_, num_guides_;
    double total_ = 0;
    Buffer<double> sums_;
    Buffer<std::int32_t> guides_;
};

// Write the bytes of outcomes.
template <int Bytes>
void pack_in_word(const Draws& draws, const std::int32_t* outcomes, int count, std::uint8_t* out) {
    const std::int32_t mask = (1 << draws.chunk_bits) - 1;
    for (int i = 0; i < count; ++i) {
        std::uint64_t word = draws.tables[outcomes[i] & mask];
        const std::uint64_t* table = draws.tables + mask + 1;
        for (int c = 1; c < draws.num_chunks; ++c, table += mask + 1)
            word |= table[outcomes[i] >> (c * draws.chunk_bits) & mask];
        std::memcpy(out + Bytes * i, &word, Bytes);
    }
}

void pack_in_words(const Draws& draws, const std::int32_t* outcomes, int count, std::uint8_t* out) {
    const std::int32_t mask = (1 << draws.chunk_bits) - 1;
    for (int i = 0; i < count; ++i, out += draws.num_bytes)
        for (int w = 0; w < draws.num_words; ++w) {
            std::uint64_t word = 0;
            for (int c = 0; c < draws.num_chunks; ++c) {
                const std::int64_t entry =
                    std::int64_t(c) * (mask + 1) + (outcomes[i] >> (c * draws.chunk_bits) & mask);
                word |= draws.tables[entry * draws.num_words + w];
            }
            std::memcpy(out + 8 * w, &word, std::min<std::int64_t>(draws.num_bytes - 8 * w, 8));
        }
}

void pack(const Draws& draws, const std::int32_t* outcomes, int count, std::uint8_t* out) {
    switch (draws.num_bytes) {
        case 1:
            return pack_in_word<1>(draws, outcomes, count, out);
        case 2:
            return pack_in_word<2>(draws, outcomes, count, out);
        case 3:
            return pack_in_word<3>(draws, outcomes, count, out);
        case 4:
            return pack_in_word<4>(draws, outcomes, count, out);
        default:
            return pack_in_words(draws, outcomes, count, out);
    }
}

// Draw the shots begin .. end - 1 of one draw.
void draw_row(const Draws& draws, std::int64_t draw, const Table& table, std::int64_t begin, std::int64_t end) {
    const Philox random{{draws.key[0], draws.key[1]}, draws.streams[draw]};
    std::uint8_t* out = draws.shots + draw * draws.num_shots * draws.num_bytes;
    std::uint64_t words[block];
    double uniform[block];
    std::int32_t outcomes[block];
    begin += draws.first_shot;
    end += draws.first_shot;
    for (std::int64_t first = begin / 4 * 4; first < end; first += block) {
        for (int w = 0; w < block; w += 4) random.words((first + w) / 4, words + w);
        for (int w = 0; w < block; ++w) uniform[w] = static_cast<double>(words[w] >> 11) * 0x1p-53;
        if (!table.is_cached()) table.prefetch(uniform, block);
        for (int w = 0; w < block; ++w) outcomes[w] = table.find(uniform[w]);
        const std::int64_t start = std::max(first, begin), stop = std::min(first + block, end);
        pack(draws, outcomes + (start - first), static_cast<int>(stop - start),
             out + (start - draws.first_shot) * draws.num_bytes);
    }
}

}  // namespace

void draw_shots(const Draws& draws) {
    const std::int64_t work = draws.num_draws * (draws.num_outcomes * outcome_work + draws.num_shots * shot_work);
    const int size =
        static_cast<int>(std::max<std::int64_t>(std::min<std::int64_t>(work / thread_work, draws.num_threads), 1));
    Team team(size);
    const auto share = [&](std::int64_t count, int thread) { return count * thread / size; };
    const auto row = [&](std::int64_t draw) { return draws.probabilities + draws.sources[draw] * draws.num_outcomes; };
    const auto needs_fill = [&](std::int64_t draw, std::int64_t first) {
        return draw == first || draws.sources[draw] != draws.sources[draw - 1];
    };
    if (draws.num_draws < size || draws.num_outcomes > most_cached_outcomes) {
        Table table(draws.num_outcomes, draws.num_shots);
        team.run([&](int thread) {
            for (std::int64_t draw = 0; draw < draws.num_draws; ++draw) {
                if (needs_fill(draw, 0)) {
                    team.barrier();
                    if (thread == 0) table.fill(row(draw));
                    team.barrier();
                }
                draw_row(draws, draw, table, share(draws.num_shots, thread), share(draws.num_shots, thread + 1));
            }
        });
        return;
    }
    team.run([&](int thread) {
        Table table(draws.num_outcomes, draws.num_shots);
        const std::int64_t first = share(draws.num_draws, thread), end = share(draws.num_draws, thread + 1);
        for (std::int64_t draw = first; draw < end; ++draw) {
            if (needs_fill(draw, first)) table.fill(row(draw));
            draw_row(draws, draw, table, 0, draws.num_shots);
        }
    });
}

}  // namespace qf

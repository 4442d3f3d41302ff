// SPDX-License-Identifier: Apache-2.0
//
// Draws outcomes of measurements from their probabilities, and packs them into the bytes of classical registers.
//
//     outcome = first i with  p_0 + ... + p_i  >  u (p_0 + ... + p_{K-1}),    u uniform in [0, 1)
//
// The probabilities of a row need not have the sum 1. An outcome of probability 0 is never drawn. Shot s of stream r
// takes the number u with the index s of a random stream that only the key and r determine. So shots are independent of
// threads, of the order of the rows, and of how many shots one call draws.
#pragma once

#include <cstdint>

namespace qf {

// Arrays are row-major.
struct Draws {
    const double* probabilities;   // (rows, num_outcomes), >= 0, each row with a sum > 0
    std::int64_t num_outcomes;     // K, 1 or more
    const std::int64_t* sources;   // (num_draws,), the row of probabilities of each draw
    const std::uint64_t* streams;  // (num_draws,), the random stream of each draw
    std::int64_t num_draws;
    std::uint64_t key[2];
    std::int64_t first_shot;  // the index in its stream of the first shot of each draw
    std::int64_t num_shots;   // shots of each draw
    int num_threads;          // most threads

    // The bytes of an outcome are the bitwise or of one entry for each chunk of chunk_bits bits of the outcome. An
    // entry is num_words words, which hold num_bytes bytes in their order in memory; the other bytes are not used.
    const std::uint64_t* tables;  // (num_chunks, 2^chunk_bits, num_words)
    int num_chunks, chunk_bits, num_words;
    std::int64_t num_bytes;
    std::uint8_t* shots;  // (num_draws, num_shots, num_bytes), the results
};

// Cost: O(num_outcomes + num_shots) for each draw; O(num_shots) for a draw from the same row as the draw before it.
void draw_shots(const Draws& draws);

}  // namespace qf

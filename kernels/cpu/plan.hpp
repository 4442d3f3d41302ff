// SPDX-License-Identifier: Apache-2.0
//
// The data of the CPU engine: the plan of a circuit, the request of a call, and the class Plan, which evaluates a plan
// for rows of angles.
//
// A plan consists of phases and layers in turn: phase 0, layer 0, phase 1, layer 1, ..., phase D. A layer holds at most
// one rotation for each qubit. A run is a product of one-qubit gates, U = Rz(phi) Ry(beta) Rz(lambda). For a run of
// layer k, Ry is a rotation of layer k, Rz(lambda) is part of phase k, and Rz(phi) is part of phase k + 1. A layer may
// also hold dense gates and linear maps, on bits that its rotations leave alone.
#pragma once

#include <array>
#include <atomic>
#include <complex>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/observables.hpp"
#include "cpu/plan_records.hpp"
#include "cpu/runtime/stopping.hpp"
#include "cpu/simd/sweeps.hpp"
#include "shared/plan_records.h"

namespace qf {

// A dense gate of layer `layer`: a constant unitary on the bits of `targets`, applied where (i & care) == value. Bit j
// of a row or a column of the matrix belongs to the j-th lowest bit of `targets`. No dense gate is in layer 0, because
// the state after layer 0 is a product state.
struct DenseGate {
    int layer;
    index_t targets, care, value;
    std::vector<std::complex<double>> matrix;  // [2^k][2^k]
};

// A linear map of the index over GF(2): amplitude i moves to the index A i, the XOR of columns[b] over the set bits b
// of i. Bit b is the highest bit of columns[b], so blocks of 2^k neighbouring amplitudes move to such blocks.
struct LinearMap {
    std::vector<index_t> columns;  // [num_qubits]
};

// The use of a map in a layer. Rotations of the layer act on bits that the map neither reads nor changes. No map is in
// layer 0, because the state after layer 0 is a product state.
struct MapStep {
    int layer, map;
};

struct PlanData {
    int num_qubits, num_columns, num_layers;
    int chunk_bits;  // the highest `chunk_bits` index bits cut the state into chunks; 0: the state is one chunk
    bool is_real;    // true: a state that starts real stays real up to a global phase
    std::vector<Leaf> leaves;
    std::vector<Run> runs;                       // sorted by layer
    std::vector<Term> terms;                     // sorted by phase
    std::vector<DenseGate> dense;                // sorted by layer
    std::vector<LinearMap> maps;                 // the different maps
    std::vector<MapStep> map_steps;              // sorted by layer
    std::vector<double> initial_re, initial_im;  // the start state [2^num_qubits]; empty: |0...0>
};

// A step of a checkpointing schedule (qiskit_fused/engines/checkpointing.py).
struct Action {
    enum Kind : std::int32_t { forward, back };
    std::int32_t kind, position, source, target;
};

struct Progress {
    StopFlag stop{false};                         // evaluate() throws soon after the flag is set
    std::atomic<std::int64_t> done{0}, total{0};  // number of forward and adjoint steps
};

struct Request {
    const double* columns;  // [rows][num_columns]
    int rows;
    const std::int32_t* pair_observable;  // [pairs], sorted by row: the observable of each pair
    const std::int64_t* row_pairs;        // [rows + 1]: the pairs of row r are row_pairs[r] .. row_pairs[r + 1] - 1
    bool gradient, imaginary;             // imaginary: the gradient is 2 Im <psi|O|d psi>
    // Weights of the pairs, [pairs], or null. With weights, one lam for each row sums O psi of its pairs.
    const double* cotangents;
    // [num_columns], or null. 1 marks a column of which the caller uses only the gradient summed over rows; by_row().
    const std::uint8_t* sum_columns;
    const Action* actions;  // the schedule of states of each row; null: psi is uncomputed
    std::int64_t num_actions;
    int num_states;  // states that the schedule holds
    int num_threads;
    const std::complex<double>* initial_states;  // [rows][2^num_qubits], or null: all rows start as the plan says
    bool shared_start;                           // true: initial_states holds one state for all rows
    // true: initial_states are the states at the end, which only the backward sweep brings back to the start. The sweep
    // writes the states at the start to final_states. Such a call has one row, final_cotangents, and no schedule.
    bool from_end;
    const std::complex<double>* final_cotangents;  // [rows][2^num_qubits]: 2 lam at the end, instead of pairs; or null
    std::complex<double>* final_states;            // output [rows][2^num_qubits], or null
    std::complex<float>* single_states;     // the same in single precision, in the place of final_states; or null
    std::complex<double>* state_gradients;  // output [pairs or rows][2^num_qubits]: 2 lam at the start; or null
    double* values;                         // output [pairs]
    double* gradients;                      // output [pairs or rows][num_columns]
    std::size_t kept_bytes;                 // bytes of other kept items that may stay allocated during the call
    Progress* progress;

    // Say whether a gradient belongs to a row (to its weighted sum of pairs, or to its final state), not to a pair.
    bool by_row() const { return cotangents || final_cotangents; }
    std::int64_t pairs_of(int row) const { return row_pairs[row + 1] - row_pairs[row]; }
    bool has_ends() const { return final_states || single_states || final_cotangents; }
    bool asks_for(int row) const { return pairs_of(row) > 0 || has_ends(); }
};

struct Stats {
    int threads;
    int rows;              // rows in work at the same time, each with its own states
    std::size_t bytes;     // bytes that the call, its plan and its observables hold
    double bind_seconds;   // time to bind the first row and to make the tables that rows share
    double sweep_seconds;  // time of all sweeps of all rows, including the binding of the other rows
    bool is_finite;        // whether all columns are finite
};

template <class T>
class Engine;
template <class T>
class Layout;

class Plan {
  public:
    explicit Plan(PlanData data);
    ~Plan();
    template <class T>
    const Layout<T>& layout();  // the first call makes the layout
    template <class T>
    Stats evaluate(const Request& request, Observables& observables);

  private:
    template <class Object, class Argument>
    Object& made(std::unique_ptr<Object>& object, const Argument& argument);

    const PlanData data_;
    std::unique_ptr<Layout<float>> float_layout_;
    std::unique_ptr<Layout<double>> double_layout_;
    std::unique_ptr<Engine<float>> float_engine_;
    std::unique_ptr<Engine<double>> double_engine_;
};

double fma_peak(bool single_precision, int num_threads);

}  // namespace qf

// SPDX-License-Identifier: Apache-2.0
//
// The table of the inner loops over packs of rows. packs.hpp has the layout and the contracts.
//
// Contract: the file is compiled once for each instruction set; the macro QF_ISA names the namespace.
#if defined(__x86_64__) && defined(__AVX2__)
#include <immintrin.h>
#endif

#include "cpu/simd/pack_binding.hpp"
#include "cpu/simd/pack_sums.hpp"
#include "cpu/simd/pack_sweeps.hpp"
#include "cpu/simd/pack_tables.hpp"

namespace qf {
namespace QF_ISA {
namespace {

template <class T>
constexpr PackSweeps<T> make_table() {
    return {Simd<T>::width,
            pack_rotate,
            pack_adjoint,
            pack_rotate_last,
            pack_adjoint_with_x,
            most_after_phase,
            pack_sums,
            load_columns<T>,
            all_finite,
            sines,
            bind_leaves<T>,
            bind_runs<T>,
            bind_terms<T>,
            bind_states<T>,
            set_factors<T>,
            fill_table<T>,
            multiply_table<T>,
            start<T>,
            load_states<T>,
            store_states<T, double>,
            store_states<T, float>,
            rotate_pack<T>,
            phase_and_rotate<T>,
            phase_adjoint<T>,
            rotate_pack_adjoint<T>,
            sum_pack<T>,
            pack_z_sums<T>,
            pack_walsh<T>,
            generator_sum<T>,
            observe_pack<T>,
            observe_outcomes<T>,
            set_w<T>,
            add_run_gradients<T>,
            add_summed_gradients<T>,
            add_term_gradients<T>,
            add_rows<T>,
            store_columns<T>};
}

}  // namespace

extern const PackSweeps<float> pack_sweeps_float;
extern const PackSweeps<double> pack_sweeps_double;
const PackSweeps<float> pack_sweeps_float = make_table<float>();
const PackSweeps<double> pack_sweeps_double = make_table<double>();

}  // namespace QF_ISA
}  // namespace qf

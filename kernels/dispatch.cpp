// SPDX-License-Identifier: Apache-2.0
//
// Which instruction set to run: the best one that was compiled in and that this CPU has. QISKIT_FUSED_ISA names another
// (baseline, avx2, avx512), to test or to compare.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "engine.hpp"

namespace qf {

#define QF_DECLARE(isa)                        \
    namespace isa {                            \
    extern const Sweeps<float> sweeps_float;   \
    extern const Sweeps<double> sweeps_double; \
    }
QF_DECLARE(baseline)
#if defined(QF_X86_64)
QF_DECLARE(avx2)
QF_DECLARE(avx512)
#endif

namespace {

std::string choose() {
    const char* forced = std::getenv("QISKIT_FUSED_ISA");
    const std::string wanted = forced ? forced : "";
    std::string available = "baseline";
#if defined(QF_X86_64)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if ((avx512 && wanted.empty()) || (avx512 && wanted == "avx512")) return "avx512";
    if ((avx2 && wanted.empty()) || (avx2 && wanted == "avx2")) return "avx2";
    if (avx2) available += ", avx2";
    if (avx512) available += ", avx512";
#endif
    if (!wanted.empty() && wanted != "baseline")
        throw std::invalid_argument("QISKIT_FUSED_ISA is '" + wanted + "'; this CPU and build have: " + available);
    return "baseline";
}

}  // namespace

std::string isa_name() {
    static const std::string name = choose();
    return name;
}

template <>
const Sweeps<float>& best_sweeps<float>() {
#if defined(QF_X86_64)
    if (isa_name() == "avx512") return avx512::sweeps_float;
    if (isa_name() == "avx2") return avx2::sweeps_float;
#endif
    return baseline::sweeps_float;
}
template <>
const Sweeps<double>& best_sweeps<double>() {
#if defined(QF_X86_64)
    if (isa_name() == "avx512") return avx512::sweeps_double;
    if (isa_name() == "avx2") return avx2::sweeps_double;
#endif
    return baseline::sweeps_double;
}

}  // namespace qf

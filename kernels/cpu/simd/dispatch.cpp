// SPDX-License-Identifier: Apache-2.0
//
// The choice of the instruction set: the best set that is compiled in and that this CPU has. The environment variable
// QISKIT_FUSED_ISA (baseline, avx2 or avx512) forces another set, for tests and comparisons.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "cpu/simd/packs.hpp"
#include "cpu/simd/sweeps.hpp"

#if defined(QF_X86_64) && defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <intrin.h>
#include <windows.h>
#endif

namespace qf {

#define QF_DECLARE(isa)                                 \
    namespace isa {                                     \
    extern const Sweeps<float> sweeps_float;            \
    extern const Sweeps<double> sweeps_double;          \
    extern const PackSweeps<float> pack_sweeps_float;   \
    extern const PackSweeps<double> pack_sweeps_double; \
    }
QF_DECLARE(baseline)
#if defined(QF_X86_64)
QF_DECLARE(avx2)
QF_DECLARE(avx512)
#endif

namespace {

#if defined(QF_X86_64)
struct Features {
    bool avx2, avx512;  // including the extensions (fma, bmi2, dq, vl, bw) for which sweeps.cpp is compiled
};
#if defined(_WIN32)
// __builtin_cpu_supports needs Clang's own library, which Visual Studio does not link. Windows tells which registers it
// saves at a switch of threads; CPUID tells the other features.
Features find_features() {
    int leaf1[4], leaf7[4];  // eax, ebx, ecx, edx
    __cpuid(leaf1, 1);
    __cpuidex(leaf7, 7, 0);
    auto bit = [](int word, int position) { return (static_cast<unsigned>(word) >> position & 1) != 0; };
    const bool fma = bit(leaf1[2], 12), bmi2 = bit(leaf7[1], 8);
    const bool dq = bit(leaf7[1], 17), bw = bit(leaf7[1], 30), vl = bit(leaf7[1], 31);
    const bool avx2 = IsProcessorFeaturePresent(PF_AVX2_INSTRUCTIONS_AVAILABLE) && fma && bmi2;
    return {avx2, avx2 && IsProcessorFeaturePresent(PF_AVX512F_INSTRUCTIONS_AVAILABLE) && dq && bw && vl};
}
#else
Features find_features() {
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    return {avx2, avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")};
}
#endif
#endif

std::string choose() {
    const char* forced = std::getenv("QISKIT_FUSED_ISA");
    const std::string wanted = forced ? forced : "";
    std::string available = "baseline";
#if defined(QF_X86_64)
    const auto [avx2, avx512] = find_features();
    if ((avx512 && wanted.empty()) || (avx512 && wanted == "avx512")) return "avx512";
    if ((avx2 && wanted.empty()) || (avx2 && wanted == "avx2")) return "avx2";
    if (avx2) available += ", avx2";
    if (avx512) available += ", avx512";
#endif
    if (!wanted.empty() && wanted != "baseline")
        throw std::invalid_argument("QISKIT_FUSED_ISA is '" + wanted + "'; this CPU and build have: " + available);
    return "baseline";
}

const std::string& chosen() {
    static const std::string name = choose();
    return name;
}

}  // namespace

const char* isa_name() {
    return chosen().c_str();
}

// Define a function that returns the table `table` of the instruction set in use.
#if defined(QF_X86_64)
#define QF_CHOOSE(function, table)                                 \
    template <>                                                    \
    decltype(function()) function() {                              \
        if (chosen() == "avx512") return avx512::table;            \
        return chosen() == "avx2" ? avx2::table : baseline::table; \
    }
#else
#define QF_CHOOSE(function, table)    \
    template <>                       \
    decltype(function()) function() { \
        return baseline::table;       \
    }
#endif
QF_CHOOSE(best_sweeps<float>, sweeps_float)
QF_CHOOSE(best_sweeps<double>, sweeps_double)
QF_CHOOSE(best_pack_sweeps<float>, pack_sweeps_float)
QF_CHOOSE(best_pack_sweeps<double>, pack_sweeps_double)

}  // namespace qf

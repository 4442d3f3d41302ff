// SPDX-License-Identifier: Apache-2.0
#include "cpu/instructions.hpp"

#include <cstring>

namespace qf {
namespace {

// Kinds of QkOperationKind whose instructions a view shows as a whole.
constexpr std::uint8_t whole_kinds[] = {0, 1, 3, 4};  // standard gate, barrier, measurement, reset

bool equal_indices(const std::uint32_t* first, const std::uint32_t* second, std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i)
        if (first[i] != second[i]) return false;
    return true;
}

}  // namespace

Instructions::Instructions(const CircuitFunctions& functions, const void* circuit)
    : functions_(functions),
      param_stride_(functions.param_stride()),
      views_(functions.num_instructions(circuit)),
      kinds_(views_.size()) {
    for (std::size_t i = 0; i < views_.size(); ++i) {
        functions_.view_instruction(circuit, i, &views_[i]);
        kinds_[i] = functions_.instruction_kind(circuit, i);
    }
}

bool Instructions::is_whole(std::size_t index) const {
    for (const std::uint8_t kind : whole_kinds)
        if (kinds_[index] == kind) return true;
    return false;
}

bool Instructions::match(const void* circuit) const {
    if (functions_.num_instructions(circuit) != views_.size()) return false;
    for (std::size_t i = 0; i < views_.size(); ++i) {
        InstructionView view;
        functions_.view_instruction(circuit, i, &view);
        if (functions_.instruction_kind(circuit, i) != kinds_[i] || !matches(views_[i], view)) return false;
    }
    return true;
}

bool Instructions::matches(const InstructionView& own, const InstructionView& other) const {
    if (own.name_length != other.name_length || own.num_qubits != other.num_qubits ||
        own.num_clbits != other.num_clbits || own.num_params != other.num_params)
        return false;
    if (std::memcmp(own.name, other.name, own.name_length) != 0 ||
        !equal_indices(own.qubits, other.qubits, own.num_qubits) ||
        !equal_indices(own.clbits, other.clbits, own.num_clbits))
        return false;
    for (std::size_t i = 0; i < own.num_params * param_stride_; i += param_stride_) {
        // Both circuits share an unchanged expression, so equal bytes answer most comparisons.
        if (std::memcmp(own.params + i, other.params + i, param_stride_) != 0 &&
            !functions_.params_are_equal(own.params + i, other.params + i))
            return false;
    }
    return true;
}

}  // namespace qf

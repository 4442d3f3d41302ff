// SPDX-License-Identifier: Apache-2.0
//
// The instructions of a Qiskit circuit, which are compared with an earlier copy of the circuit.
//
// Qiskit stores instructions in native code. Python sees each instruction as a new object, and making this object takes
// most of the time of a comparison in Python. Qiskit's C interface shows an instruction without making anything. The
// functions are found by their names when the process runs, so the extension is compiled without Qiskit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qf {

// QkCircuitInstructionView. All pointers belong to the circuit. The name does not end with a zero.
struct InstructionView {
    const char* name;
    const std::uint32_t *qubits, *clbits;
    const char* params;  // num_params objects, each of param_stride() bytes
    std::size_t name_length;
    std::uint32_t num_qubits, num_clbits;
    std::size_t num_params;
};

// Functions of Qiskit's C interface. A circuit is a QkCircuit, and a parameter is a QkParam.
struct CircuitFunctions {
    void* (*borrow_from_python)(void* object);
    std::size_t (*num_instructions)(const void* circuit);
    std::uint8_t (*instruction_kind)(const void* circuit, std::size_t index);
    void (*view_instruction)(const void* circuit, std::size_t index, InstructionView* view);
    bool (*params_are_equal)(const void* first, const void* second);
    std::size_t (*param_stride)();
};

// The instructions of a circuit that nobody changes and that lives longer than this object.
class Instructions {
  public:
    Instructions(const CircuitFunctions& functions, const void* circuit);

    // Say whether an instruction is compared as a whole: standard gates, barriers, measurements and resets are. Of all
    // others, only the name, the bits and the numbers are compared.
    bool is_whole(std::size_t index) const;
    std::size_t size() const { return views_.size(); }
    // Say whether another circuit has the same instructions. Cost: about 20 ns for each instruction.
    bool match(const void* circuit) const;

  private:
    bool matches(const InstructionView& own, const InstructionView& other) const;

    const CircuitFunctions functions_;
    const std::size_t param_stride_;
    std::vector<InstructionView> views_;
    std::vector<std::uint8_t> kinds_;
};

}  // namespace qf

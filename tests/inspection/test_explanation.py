# SPDX-License-Identifier: Apache-2.0
"""Text about a plan, a table or sentences: its fused and omitted gates, its costs, and the gates that rows share."""

import re

import pytest
from engine_cases import cx_layers, dense_circuit
from layered_circuits import hardware_efficient, total_z
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import CXGate, efficient_su2, real_amplitudes
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import fuse
from qiskit_fused.inspection.explanation import shared_texts


def _bare(add, num_qubits=4):
    circuit = QuantumCircuit(num_qubits)
    add(circuit)
    return circuit


def test_a_printed_plan_is_a_table_of_what_was_fused():
    text = str(fuse(hardware_efficient(4, 1), total_z(4)))
    for line in (
        "circuit     4 qubits, 12 parameters",
        "gates       15",
        "fused       4 rotations in 1 layer, 0 terms in 2 phases",
        "sweeps      2 forward, 2 backward, in 1 chunk",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("add", "names"),
    [
        (lambda circuit: circuit.cu(0.1, 0.2, 0.3, 0.4, 0, 1), {"cu": 1}),
        (lambda circuit: circuit.mcx([0, 1, 2], 3), {"mcx": 1}),
        (lambda circuit: circuit.ccx(0, 1, 2), {"ccx": 1}),
        (lambda circuit: circuit.mcp(0.3, [0, 1, 2], 3), {"mcp": 1}),
        (lambda circuit: circuit.append(CXGate(ctrl_state=0), [0, 1]), {"cx": 1}),
        (lambda circuit: circuit.append(real_amplitudes(2, reps=1).to_gate(), [0, 1]), {"ry": 4, "cx": 1}),
    ],
    ids=["cu", "mcx", "ccx", "mcp", "ctrl_state", "nested"],
)
def test_gates_are_counted_as_they_were_written(add, names):
    plan = fuse(_bare(add))
    assert plan.program.count_gates() == names
    number = sum(names.values())
    assert f"\n  gates       {number}\n" in str(plan)
    assert repr(plan.program).endswith(f", {number} gate{'s' * (number > 1)})")
    listed = ", ".join(f"{count} {name}" for name, count in names.items())
    assert f"{number} gate{'s' * (number > 1)} ({listed}) became" in " ".join(plan.explain().split())


def test_dense_gates_are_counted_in_the_table_and_explained():
    plan = fuse(dense_circuit(6, 4, 1))
    assert "2 dense gates" in repr(plan)
    assert re.search("normal form .*terms?, 2 dense gates\n", str(plan))
    assert "the largest acts on 4 qubits and takes 16 multiplications per amplitude." in " ".join(
        plan.explain().split()
    )
    alone = fuse(dense_circuit(6, 4))
    assert alone.flops(gradient=False) - plan.flops(gradient=False) > 8 * 2**4 * 2**6 // 2


def test_linear_maps_are_counted_in_the_table_and_explained():
    plan = fuse(cx_layers(12), total_z(12))
    assert "3 linear maps" in repr(plan) and "3 linear maps" in str(plan)
    text = " ".join(plan.explain().split())
    assert "A linear map is CX gates that follow each other" in text
    assert "1 operations that no observable sees, of the 171 rotations and terms" in text


def test_sentences_about_a_plan_hold_for_one_gate_too():
    text = " ".join(fuse(_bare(lambda circuit: circuit.rx(0.1, 0))).explain().split())
    assert "Each rotation is a gate of one qubit" in text and "1 gates" not in text
    deep = efficient_su2(8, reps=5)
    text = " ".join(fuse(deep, "IIIIIIIZ").explain().split())
    assert (
        "22 operations that no observable sees, of the 201 rotations and terms that the gates are taken apart" in text
    )


def test_a_plan_says_why_complex64_takes_more_memory_where_it_does():
    circuit = QuantumCircuit(10)
    for layer in range(50):
        for qubit in range(10):
            circuit.ry(Parameter(f"a{layer}_{qubit}"), qubit)
            circuit.rx(Parameter(f"b{layer}_{qubit}"), qubit)
        for qubit in range(10):
            circuit.cx(qubit, (qubit + 1) % 10)
    plan, text = fuse(circuit), "complex64 takes more: its tables of phases are small enough to be kept"
    assert (plan.memory(dtype="complex64") > plan.memory(dtype="complex128")) == (text in str(plan))
    assert text in str(plan) and text not in str(fuse(real_amplitudes(4)))


def test_the_explanation_names_what_was_fused_and_left_out():
    text = " ".join(
        fuse(hardware_efficient(22, 5), SparsePauliOp.from_sparse_list([("Z", [0], 1.0)], 22)).explain().split()
    )
    assert "435 gates (110 rx, 110 ry, 110 rz, 105 cz) became 15 rotations in 5 layers" in text
    assert "17 qubits that no observable sees" in text


def test_the_explanation_of_the_method_is_what_auto_takes():
    for plan in (fuse(efficient_su2(11, reps=2)), fuse(efficient_su2(11, reps=40))):
        (auto,) = [cost for cost in plan.report(memory_limit="4GB").costs if cost.is_auto and cost.device == "cpu"]
        assert f"'auto' is {auto.method!r}" in plan.explain()


def test_the_explanation_says_what_rows_share():
    circuit = hardware_efficient(4, 6)
    plan = fuse(circuit, total_z(4), inputs=circuit.parameters[30:33])
    words = " ".join(plan.explain().split())
    for name, text in shared_texts(plan.sharing(plan.inputs), 1):
        assert f"{name} {text}" in words
    assert "prefix" in words and "prefix" not in fuse(circuit, total_z(4)).explain()


def test_large_states_are_bound_by_memory_and_small_ones_by_arithmetic():
    words = [fuse(hardware_efficient(n, 2)).explain("complex64") for n in (12, 20, 24)]
    bounds = [text.partition("bound by")[2].split()[:2] for text in words]
    assert bounds == [["arithmetic:", "state"], ["arithmetic,", "or"], ["memory,", "on"]]


def test_a_plan_without_observables_does_not_speak_of_what_they_see():
    circuit = real_amplitudes(4, reps=1)
    circuit.measure_all()
    plan = fuse(circuit)
    assert "  simulated   4 qubits; all gates are kept, since no observables were given\n" in str(plan)
    assert "nothing: all gates are kept, since no observables were given." in " ".join(plan.explain().split())
    assert "observables can see" not in str(plan) and "the observables see" not in plan.explain()
    assert "  simulated   2 qubits that the observables can see\n" in str(fuse(circuit, "ZIII"))

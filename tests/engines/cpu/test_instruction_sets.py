# SPDX-License-Identifier: Apache-2.0
"""Every instruction set of this CPU agrees with the reference engine: single rows, packs of rows, and frames of maps.

One interpreter makes all checks of an instruction set, because its start takes longer than each of the checks. The
checks use the helpers of other modules of this folder, which only that interpreter can import by name.
"""

from engine_cases import (
    TOLERANCE,
    assert_formats_agree_with_reference,
    cx_layers,
    full_graph,
    plan_of,
    random_circuit,
    random_observables,
    run_kinds,
    total_z,
)
from instruction_sets import check_on, every_instruction_set

from qiskit_fused.engines.cpu.engine import CpuEngine


def check_single_rows():
    circuits = [full_graph(n) if n in (1, 6, 10) else random_circuit(n, 12, n) for n in (1, 3, 6, 10, 14)]
    for circuit in circuits:
        observables = random_observables(circuit.num_qubits, circuit.num_qubits)
        assert_formats_agree_with_reference(CpuEngine(), circuit, observables)
    for circuit in (cx_layers(14), run_kinds(11)):
        assert_formats_agree_with_reference(CpuEngine(), circuit, random_observables(circuit.num_qubits, 1))


def check_packs():
    from test_packs import (
        SINE_ERRORS,
        assert_rows_agree,
        assert_states_agree,
        circuit_of,
        rows_with,
        states_plan_of,
        test_sines_and_cosines_have_the_stated_error,
    )

    for n in (1, 3, 6, 8, 9):
        for dtype in TOLERANCE:
            for circuit in (circuit_of(n, n), full_graph(n)):
                plan, operators = plan_of(circuit, random_observables(n, n))
                for num_rows in (2, 5, 16, 35) if n < 9 else (66,):
                    assert_rows_agree(plan, operators, rows_with(plan, num_rows, True), dtype)
                for plan in (states_plan_of(circuit), states_plan_of(circuit, True)):
                    assert_states_agree(plan, rows_with(plan, 21 if n < 9 else 66, True), dtype)
    for dtype, bound in SINE_ERRORS:
        test_sines_and_cosines_have_the_stated_error(dtype, bound)


def check_frames():
    from test_frames import has_frames, random_cx_circuit

    circuits = [cx_layers(14), cx_layers(14, gates=("ry",)), cx_layers(14, "ring", gates=("rx", "ry"))]
    for circuit in [*circuits, random_cx_circuit(14, 1, num_dense=2)]:
        plan, _ = plan_of(circuit, total_z(14))
        assert has_frames(plan)
        assert_formats_agree_with_reference(CpuEngine(2), circuit, random_observables(14, 1))


@every_instruction_set
def test_every_instruction_set_of_this_cpu_agrees_with_the_reference(name):
    code = (
        "from test_instruction_sets import check_frames, check_packs, check_single_rows\n"
        "check_single_rows()\n"
        "check_packs()\n"
        "check_frames()\n"
    )
    check_on(name, code, __file__)

# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of real states: circuits whose states stay real, and the comparison with the reference engine."""

import numpy as np
from asking import ask
from engine_cases import all_pairs, assert_agree, plan_of, random_observables, rows_of
from hypothesis import strategies as st
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.engines.cpu.engine import CpuEngine
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.options.method import REVERSE

REAL_GATES = {"ry": 1, "h": 1, "x": 1, "z": 1, "cx": 2, "cz": 2, "swap": 2, "ccz": 3, "ccx": 3}


@st.composite
def real_circuits(draw, max_qubits=9):
    num_qubits = draw(st.integers(3, max_qubits))
    names = draw(st.lists(st.sampled_from([*REAL_GATES, "ry", "ry"]), min_size=1, max_size=30))
    circuit, angles = QuantumCircuit(num_qubits), iter(ParameterVector("p", len(names)))
    for name in names:
        qubits = draw(st.permutations(range(num_qubits)))[: REAL_GATES[name]]
        circuit.ry(next(angles), qubits[0]) if name == "ry" else getattr(circuit, name)(*qubits)
    return circuit


def assert_real_and_right(circuit, dtype, weighted=False, method=REVERSE, engine=None):
    plan, operators = plan_of(circuit, random_observables(circuit.num_qubits, 3))
    assert plan.is_real
    columns = rows_of(plan.program)
    pairs = all_pairs(len(columns), len(operators))
    options = {"gradient": True, "cotangents": np.linspace(-1, 1, len(pairs[0])) if weighted else None}
    expected = ask(ReferenceEngine(), plan, operators, columns, pairs, **options)
    engine = engine or CpuEngine()
    assert_agree(ask(engine, plan, operators, columns, pairs, **options, dtype=dtype, method=method), expected, dtype)

# SPDX-License-Identifier: Apache-2.0
"""Lowering is the same in every process: nothing depends on the order of a set, or on a hash."""

import hashlib
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import pytest
from qiskit.circuit import Gate, Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import (
    MCMTGate,
    PauliEvolutionGate,
    RVGate,
    RYGate,
    UnitaryGate,
    qaoa_ansatz,
    real_amplitudes,
    zz_feature_map,
)
from qiskit.quantum_info import SparsePauliOp, random_unitary
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower

V = ParameterVector("v", 12)
P, Q = Parameter("p"), Parameter("q")


class Selecting(Gate):
    """A custom gate whose angles list more parameters than they depend on."""

    def __init__(self, *params):
        super().__init__("selecting", 2, list(params))

    def _define(self):
        circuit = QuantumCircuit(2)
        first, second = self.params
        circuit.rx(0 * first + second, 0)
        circuit.cp(first - first + second, 0, 1)
        self.definition = circuit


def selected(index):
    return sum(float(other == index) * parameter for other, parameter in enumerate(V))


def zoo():
    """Return circuits whose lowering makes choices that could depend on the order of a set."""
    angles = QuantumCircuit(3)
    for index in range(12):
        angles.rx(selected(index), index % 3)
        angles.rzz((V[index] - V[index] + V[0]) * selected(5) + V[(index + 3) % 12] ** 2, 0, 1)
    angles.append(RVGate(selected(3), 0 * P + Q, V[1] * V[2]), [2])
    angles.append(PauliEvolutionGate(SparsePauliOp(["XXI", "ZIZ", "IYY"]), P - P + selected(9)), [0, 1, 2])
    angles.append(Selecting(P, Q), [0, 2])
    angles.append(Selecting(P, Q).control(1), [0, 1, 2])
    inner = QuantumCircuit(2, global_phase=0 * P + Q)
    inner.rz((P * Q).sin() + (P - P), 0)
    angles.append(inner.to_gate().control(1), [2, 0, 1])
    angles.ry((V[0] * V[1] + V[2]).assign(V[0], 0.0), 1)
    angles.global_phase = P * Q + selected(4)

    encoding = raw_feature_vector(4)
    x = list(encoding.parameters)
    encoding = encoding.assign_parameters({x[0]: 0 * P + Q, x[1]: P * Q + x[0], x[2]: P - P + x[3]})
    wide = QuantumCircuit(4)
    wide.append(UnitaryGate(random_unitary(8, seed=1)), [3, 0, 2])
    wide.append(MCMTGate(RYGate(P), 2, 2), [0, 1, 2, 3])
    wide.mcx([0, 1, 2], 3)
    cost = SparsePauliOp(["ZZII", "IZZI", "IIZZ", "ZIIZ"])
    return [angles, encoding, wide, zz_feature_map(4), qaoa_ansatz(cost, reps=2), real_amplitudes(4)]


def fingerprint(circuit):
    """Return a digest of a circuit's program and of the layers of its plan, over all bits."""
    program, digest = lower(circuit), hashlib.sha256()

    def add(part):
        if isinstance(part, (tuple, list)):
            for item in part:
                add(item)
        elif is_dataclass(part):
            for field in fields(part):
                if field.name != "expressions":
                    add(getattr(part, field.name))
        else:
            digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())

    for field in fields(program):
        if field.name != "expressions":
            add(getattr(program, field.name))
    values = np.random.default_rng(0).uniform(0.2, 1.0, (3, program.num_parameters))
    add(program.columns(values))
    add(program.phase.expressions.evaluate(values))
    add(program.expressions.pull_back(values, np.ones((3, 2, program.num_columns))))
    add([parameter.name for parameter in circuit.parameters])
    plan = fuse_program(program, None)
    for name, part in vars(plan).items():
        if isinstance(part, np.ndarray):
            add(name)
            add(part)
    return digest.hexdigest()


@pytest.mark.slow
def test_programs_are_the_same_bits_under_every_hash_seed():
    command = [sys.executable, str(Path(__file__))]
    started = [
        subprocess.Popen(command, env=os.environ | {"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE, text=True)
        for seed in ("1", "2", "3")
    ]
    outputs = {process.communicate()[0] for process in started}
    assert all(process.returncode == 0 for process in started)
    assert outputs == {"\n".join(map(fingerprint, zoo())) + "\n"}


if __name__ == "__main__":
    sys.stdout.write("\n".join(map(fingerprint, zoo())) + "\n")

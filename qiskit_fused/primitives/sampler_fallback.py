# SPDX-License-Identifier: Apache-2.0
"""Runs a PUB on Qiskit's simulators whose circuit no engine can run."""

from __future__ import annotations

from concurrent.futures import wait
from copy import deepcopy
from math import prod
from typing import Any

import numpy as np
from qiskit.circuit import ClassicalRegister, QuantumCircuit
from qiskit.primitives import StatevectorSampler
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit_machine_learning.primitives import QMLSampler

from qiskit_fused.common.cancellation import current
from qiskit_fused.compilation.measurements import find_measurements
from qiskit_fused.lowering.errors import UnsupportedInstruction, fallback_circuit
from qiskit_fused.primitives.exact_probabilities import ExactProbabilities
from qiskit_fused.primitives.sampled_circuits import Readout
from qiskit_fused.primitives.sampler_batches import Task

_POLL_SECONDS = 0.05  # seconds between two checks of a fallback's thread whether its job was cancelled

# Qiskit's classes, also after a test or a user has replaced them in their packages.
_SAMPLER, _EXACT_SAMPLER = StatevectorSampler, QMLSampler


def fallback_pub(task: Task) -> SamplerPub | None:
    """Return the PUB of a task for a simulator of Qiskit; None if that simulator cannot run the circuit either.

    The PUB holds a copy of the circuit. For exact probabilities, one register of the copy reads all measured qubits.
    """
    circuit, error = task.circuit.source, task.circuit.error
    if not isinstance(error, UnsupportedInstruction) or not error.fallback:
        return None
    copied: QuantumCircuit | None = deepcopy(circuit)
    if task.shots is None:
        copied = fallback_circuit(circuit, error)
        if copied is None:
            return None
        qubits = find_measurements(circuit).qubits.tolist()
        register = ClassicalRegister(len(qubits))
        copied.add_register(register)
        copied.measure(qubits, register)
    rows = (
        {task.circuit.parameters: task.values.reshape(*task.shape, task.values.shape[1])}
        if task.circuit.parameters
        else None
    )
    return SamplerPub(copied, BindingsArray(rows, task.shape), task.shots, validate=False)


def run_fallback(task: Task, key: np.ndarray) -> None:
    """Run the PUB of a task, and set the task's fields. A failure raises the error of the circuit.

    Args:
        task: a task with a PUB for Qiskit.
        key: uint64 (2,), the key of the random streams of the run.
    """
    assert task.pub is not None and task.circuit.error is not None
    try:
        if task.shots is None:
            task.fields = _exact_fields(task, _wait(_EXACT_SAMPLER().run([task.pub])))
        else:
            seed = np.random.default_rng([*key.tolist(), task.number])
            task.fields = dict(_wait(_SAMPLER(seed=seed).run([task.pub])).items())
    except Exception as error:
        raise task.circuit.error from error


def _wait(job: Any) -> Any:
    """Return the data of the only PUB of a job."""
    while current() is not None and not wait([job._future], _POLL_SECONDS).done:
        pass  # a cancelled job raises `Stopped` in this loop
    return job.result()[0].data


def _exact_fields(task: Task, data: Any) -> dict[str, Any]:
    """Return the probabilities of the classical registers from those of the register of all measured qubits."""
    circuit = task.circuit.source
    readout = Readout(np.zeros(circuit.num_qubits, dtype=int), find_measurements(circuit))
    joint = np.zeros((prod(task.shape), readout.outcomes.num_observables))
    for name in data:
        rows = data[name].get_probabilities()
        for row, probabilities in enumerate([rows] if task.shape == () else rows.flat):
            for label, probability in probabilities.items():
                joint[row, int(label, 2)] = probability
    if not len(readout.outcomes.measured):
        joint[:] = 1
    joint = joint.reshape(*task.shape, readout.outcomes.num_observables)
    return {name: ExactProbabilities(joint, sources) for name, sources in readout.registers}

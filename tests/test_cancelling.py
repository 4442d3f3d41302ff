# SPDX-License-Identifier: Apache-2.0
"""Long work can be stopped, and what was stopped can be used again."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient


def long_work(num_qubits=12, num_layers=40, num_rows=20_000):
    """A circuit, an observable and rows that take long."""
    angles = ParameterVector("a", num_qubits * num_layers)
    circuit = QuantumCircuit(num_qubits)
    for index, angle in enumerate(angles):
        circuit.ry(angle, index % num_qubits)
        if index % num_qubits:
            circuit.cz(index % num_qubits - 1, index % num_qubits)
    observable = SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(num_qubits)], num_qubits)
    return circuit, observable, np.random.default_rng(0).normal(size=(num_rows, len(angles)))


@pytest.mark.parametrize("size", [(20, 150, 3), (12, 40, 20_000)], ids=["threads share a row", "rows side by side"])
def test_a_cancelled_job_ends_soon_and_leaves_the_gradient_usable(size):
    circuit, observable, values = long_work(*size)
    gradient = FusedEstimatorGradient(num_threads=2)
    job = gradient.run([circuit] * len(values), [observable] * len(values), values)
    time.sleep(0.5)
    start = time.perf_counter()
    assert job.cancel() is False
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    assert time.perf_counter() - start < 5
    assert gradient.value_and_gradient(QuantumCircuit(size[0]), observable, [])[0] == size[0]


def test_a_cancelled_job_of_the_reference_engine_ends_after_its_row():
    circuit = QuantumCircuit(4)
    circuit.ry(Parameter("a"), 0)
    job = FusedEstimator(device="reference").run([(circuit, "ZIII", np.zeros((10**6, 1)))])
    time.sleep(0.2)
    job.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("route", ["value_and_gradient", "run"])
def test_ctrl_c_ends_the_program(route):
    call = {
        "value_and_gradient": "gradient.value_and_gradient(circuit, observable, values)",
        "run": "gradient.run([circuit] * len(values), [observable] * len(values), values).result()",
    }[route]
    code = (
        "from test_cancelling import *\n"
        "circuit, observable, values = long_work()\n"
        "gradient = FusedEstimatorGradient(num_threads=2)\n"
        "gradient.value_and_gradient(circuit, observable, values[:1])\n"
        "print('begun', flush=True)\n"
        "try:\n"
        f"    {call}\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    path = f"import sys; sys.path[:] = {sys.path!r} + ['.']\n"
    command = [sys.executable, "-c", path + code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert process.stdout.readline() == "begun\n"
        time.sleep(1.5)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
        assert process.wait() == 0
        assert time.perf_counter() - start < 10
        watchdog.cancel()

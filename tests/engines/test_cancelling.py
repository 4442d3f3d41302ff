# SPDX-License-Identifier: Apache-2.0
"""Long evaluations stop soon after they are cancelled, and the objects that ran them can be used again."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, FusedEstimatorGradient

MOST_SECONDS = 3  # largest time to stop; it takes less than one second on a machine without other work


def long_work(num_qubits=12, num_layers=40, num_rows=20_000):
    """Return a circuit, an observable and rows of parameter values whose evaluation takes long."""
    angles = ParameterVector("a", num_qubits * num_layers)
    circuit = QuantumCircuit(num_qubits)
    for index, angle in enumerate(angles):
        circuit.ry(angle, index % num_qubits)
        if index % num_qubits:
            circuit.cz(index % num_qubits - 1, index % num_qubits)
    observable = SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(num_qubits)], num_qubits)
    return circuit, observable, np.random.default_rng(0).normal(size=(num_rows, len(angles)))


def still_works(gradient, num_qubits):
    """Return whether a small evaluation has the right values and gradients."""
    circuit, observable, values = long_work(num_qubits, 1, 2)
    values[:] = 0
    evs, gradients = gradient.value_and_gradient(circuit, observable, values)
    return evs.tolist() == [[num_qubits]] * 2 and not gradients.any()


@pytest.fixture
def busy_cores():
    """Two processes that keep two cores busy."""
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for spinner in spinners:
        spinner.kill()
        spinner.wait()


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((20, 300, 3), {}),
        ((20, 300, 3), {"method": "checkpoint", "memory_limit": "200MB"}),
        ((12, 40, 20_000), {}),
        ((12, 40, 20_000), {"method": "store"}),
    ],
    ids=["threads share a row", "recomputed", "rows side by side", "stored"],
)
def test_a_cancelled_job_ends_soon_and_leaves_the_gradient_usable(size, options):
    circuit, observable, values = long_work(*size)
    gradient = FusedEstimatorGradient(num_threads=2, dtype="complex64", **options)
    job = gradient.run([circuit] * len(values), [observable] * len(values), values)
    time.sleep(0.5)
    start = time.perf_counter()
    assert job.cancel() and job.cancelled()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    seconds = time.perf_counter() - start
    sys.stdout.write(f"ended after {seconds:.3f} s\n")
    assert seconds < MOST_SECONDS
    assert still_works(gradient, size[0])


def test_a_cancelled_job_of_the_reference_engine_ends_after_its_gate():
    circuit, observable, _ = long_work(16, 100, 0)
    estimator = FusedEstimator(device="reference")
    job = estimator.run([(circuit, observable, np.zeros(circuit.num_parameters))])
    time.sleep(0.2)
    start = time.perf_counter()
    job.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    assert time.perf_counter() - start < MOST_SECONDS
    assert estimator.run([(QuantumCircuit(1), "Z")]).result()[0].data.evs == 1


def test_a_cancelled_job_ends_soon_whatever_takes_long():
    num_qubits, rng = 18, np.random.default_rng(0)
    circuit, _, values = long_work(num_qubits, 1, 1)
    labels = ["".join(rng.choice(list("IXYZ"), num_qubits)) for _ in range(15_000)]
    estimator = FusedEstimator(num_threads=2)
    job = estimator.run([(circuit, SparsePauliOp(labels), values)])  # terms take some 10 s, rotations hardly any time
    time.sleep(0.5)
    start = time.perf_counter()
    job.cancel()
    with pytest.raises(RuntimeError, match="the evaluation was cancelled"):
        job.result()
    assert time.perf_counter() - start < MOST_SECONDS


CALLS = {
    "value_and_gradient": "gradient.value_and_gradient(circuit, observable, values)",
    "run": "gradient.run([circuit] * len(values), [observable] * len(values), values).result()",
}
PROGRAM = """
from qiskit_fused.execution import progress
from qiskit_fused import compile_circuit
from test_cancelling import *
progress._BAR_AFTER = 0
circuit, observable, values = long_work{size}
gradient = FusedEstimatorGradient(num_threads=2, dtype="complex64", progress={progress})
still_works(gradient, 3)
compile_circuit(circuit)
print("begun", flush=True)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(still_works(gradient, {size}[0]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("route", "size", "progress"),
    [
        ("value_and_gradient", (12, 40, 20_000), True),
        ("value_and_gradient", (20, 400, 4), False),
        ("run", (12, 40, 20_000), False),
        ("run", (20, 400, 4), True),
    ],
    ids=["many rows", "deep", "a job of many rows", "a deep job"],
)
def test_ctrl_c_ends_the_work_and_leaves_the_gradient_usable(route, size, progress, busy_cores):
    program = PROGRAM.format(size=size, progress=progress, call=CALLS[route])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,  # python -c imports from this folder first; a checkout has no extension module
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        assert process.stdout.readline() == "begun\n"
        time.sleep(1)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        seconds = time.perf_counter() - start
        sys.stdout.write(f"ended after {seconds:.3f} s\n")
        output, errors = process.stdout.read(), process.stderr.read()
        watchdog.cancel()
    assert seconds < MOST_SECONDS
    assert output == "True\n" and process.returncode == 0
    assert ("gradients, " in errors) is progress and "Traceback" not in errors

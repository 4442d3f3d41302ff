# SPDX-License-Identifier: Apache-2.0
"""Time the work of the host for one training step on a GPU, and count the bytes that go to the device. Needs no device.

    PYTHONPATH=folder_of_cupy python benchmarks/gpu/host_time.py --qubits 12 --layers 50 --rows 1000

CuPy runs over the fake devices of the tests, whose kernels and copies do nothing. So the time has the host's work in
Python and CuPy, and the overhead of the fake functions, but no work of a device or of its driver.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import fake_driver
import numpy as np
from qiskit.circuit import ParameterVector, QuantumCircuit

from qiskit_fused.engines.cuda.availability import usable_gpu
from qiskit_fused.execution.expectations import Expectations

DEVICES = fake_driver.install()


def make_function(num_qubits: int, num_layers: int) -> Expectations:
    """Return a ring of CZ with RX, RY and RZ on each qubit of each layer, behind an encoding by RY."""
    inputs, weights = ParameterVector("x", num_qubits), ParameterVector("w", 3 * num_qubits * num_layers)
    circuit, numbers = QuantumCircuit(num_qubits), iter(weights)
    for qubit, parameter in enumerate(inputs):
        circuit.ry(parameter, qubit)
    for _ in range(num_layers):
        for qubit in range(num_qubits):
            circuit.rx(next(numbers), qubit)
            circuit.ry(next(numbers), qubit)
            circuit.rz(next(numbers), qubit)
        for qubit in range(num_qubits):
            circuit.cz(qubit, (qubit + 1) % num_qubits)
    return Expectations(circuit, ["Z" * num_qubits], inputs, weights, device="cuda", dtype="complex64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qubits", type=int, default=12)
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repetitions", type=int, default=20)
    options = parser.parse_args()
    function = make_function(options.qubits, options.layers)
    usable_gpu()  # runs a trial kernel, before the device becomes idle
    DEVICES.is_idle, DEVICES.total = True, 1 << 36
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(options.rows, options.qubits)), rng.normal(size=function.num_weights)
    cotangents = np.ones((options.rows, 1))
    times = []
    for _ in range(options.repetitions):
        uploaded, launches = DEVICES.counts.uploaded, len(DEVICES.counts.launches)
        started = time.perf_counter()
        function.value_and_vjp(rows, weights, cotangents)
        times.append(time.perf_counter() - started)
    print(
        f"n = {options.qubits}, L = {options.layers}, B = {options.rows}: least {1e3 * min(times):.2f} ms, median "
        f"{1e3 * float(np.median(times)):.2f} ms; {DEVICES.counts.uploaded - uploaded:,} bytes to the device, "
        f"{len(DEVICES.counts.launches) - launches} launches"
    )


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""``python -m qiskit_fused``: show versions and devices, test each engine for a second, and say what is missing."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from qiskit.circuit import ParameterVector, QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import __version__
from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.free_memory import free_memory
from qiskit_fused.compilation.circuits import compile_circuit
from qiskit_fused.engines.cpu.engine import isa
from qiskit_fused.engines.cuda import availability
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient
from qiskit_fused.primitives.sampler import FusedSampler

TOLERANCE = {"complex128": 1e-12, "complex64": 1e-5}
TIMED = {"reference": (6, 1), "cpu": (12, 32), "cuda": (12, 1000)}  # qubits and rows that take milliseconds
SECONDS = 0.5
EXTRAS = ("torch", "matplotlib", "tqdm")  # for FusedLayer, Plan.draw, and progress=True
CPU_BUILDS = "--index-url https://download.pytorch.org/whl/cpu"  # of PyTorch, some 200 MB in the place of gigabytes
PACKAGES = ("qiskit", "qiskit-machine-learning", "numpy", "scipy", *EXTRAS)

Section = dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return 0 if the CPU engine works, else 1."""
    parser = argparse.ArgumentParser(prog="python -m qiskit_fused", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args(arguments).json
    report = {}
    for title, section in _sections():
        report[title] = section
        if not as_json:
            print(title, *(f"  {name:<25}{text}" for name, text in section.items()), sep="\n", flush=True)
    if as_json:
        print(json.dumps(report, indent=2))
    return 0 if report["CPU engine"]["test"].startswith("passed") else 1


def _sections() -> Iterator[tuple[str, Section]]:
    yield "Versions", _versions()
    yield "Reference engine", {"test": try_engine("reference")}
    yield "CPU engine", _cpu() | {"test": try_engine("cpu")}
    yield "CUDA engine", _gpu()


def _versions() -> Section:
    found = {"Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    return found | {"qiskit-fused": __version__} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        where = f" {CPU_BUILDS}" if name == "torch" and not availability.driver_version() else ""
        return f"not installed; pip install {name}{where}"


def _cpu() -> Section:
    memory = free_memory()
    return {
        "instructions": isa(),
        "threads": str(FusedOptions().resolve_num_threads()),
        "memory": "unknown" if memory is None else f"{format_bytes(memory)} free",
    }


def _gpu() -> Section:
    found = {"driver": _driver()} | availability.describe()
    runtime, reason = availability.usable_gpu()
    if runtime is None:
        what, _, cure = reason.partition("; ")
        if "pip install" not in cure:
            return found | {"test": f"not run: {reason}"}
        return found | {"test": f"not run: {what}", "to install": cure}
    memory = f"{format_bytes(runtime.total_memory)}, {format_bytes(runtime.free_memory())} free"
    return found | {"memory": memory, "test": try_engine("cuda")}


def _driver() -> str:
    cuda = availability.driver_version()
    if not cuda:
        return "none"
    try:
        release = Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except OSError:
        release = "unknown release"
    return f"{release}, CUDA {availability.version_text(cuda)}"


def try_engine(device: str) -> str:
    """Compare values, gradients and shots of an engine with known ones, time it, and return the outcome in a line.

    In the circuit, <Z> of each qubit is the cosine of its angle times <Z> of the qubit before: RX turns Z into
    cos Z + sin Y, and CX into Z Z of control and target, whose <Z> was 1, and Z Y, whose <Y> was 0.
    """
    try:
        angles = ParameterVector("a", 5)
        circuit = QuantumCircuit(5)
        circuit.ry(angles[0], 0)
        for qubit in range(1, 5):
            circuit.cx(qubit - 1, qubit)
            circuit.rx(angles[qubit], qubit)
        points = np.linspace(0.1, 1.3, 15).reshape(3, 5)
        expected = np.cos(points).prod(axis=1)
        slopes = -np.tan(points) * expected[:, None]
        for dtype, tolerance in TOLERANCE.items():
            gradient = FusedEstimatorGradient(device=device, dtype=dtype)
            values, found = gradient.value_and_gradient(circuit, SparsePauliOp("ZIIII"), points)
            error = max(np.abs(values[:, 0] - expected).max(), np.abs(found[:, 0] - slopes).max())
            if not error <= tolerance:
                return f"FAILED: {dtype} differs by {error:.1e} from known values and gradients"
        drawn = _draw(device)
        if drawn != {"110": 100}:
            return f"FAILED: shots of a state that always gives 110 are {drawn}"
        return f"passed, {_rate(device):.2g} amplitude-rotations/s (values and gradients, complex64)"
    except Exception as error:
        return f"FAILED: {availability.brief(error)}"


def _draw(device: str) -> dict[str, int]:
    """Return the counts of 100 shots of three qubits, which are always in the state |110>."""
    circuit = QuantumCircuit(3)
    circuit.x([1, 2])
    circuit.measure_all()
    result = FusedSampler(device=device, seed=0).run([circuit], shots=100).result()[0]
    counts: dict[str, int] = result.data["meas"].get_counts()
    return counts


def _rate(device: str) -> float:
    """Return the amplitude-rotations per second of values with gradients, for rows of a deep circuit."""
    num_qubits, num_rows = TIMED[device]
    circuit = compile_circuit(efficient_su2(num_qubits, reps=8))
    observable = SparsePauliOp("Z" * num_qubits)
    gradient = FusedEstimatorGradient(device=device, dtype="complex64")
    points = np.random.default_rng(0).normal(size=(num_rows, len(circuit.parameters)))
    gradient.value_and_gradient(circuit, observable, points)
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() < start + SECONDS:
        gradient.value_and_gradient(circuit, observable, points)
        calls += 1
    seconds = time.perf_counter() - start
    return calls * num_rows * circuit.fused_program(None).num_runs * 2.0**num_qubits / seconds


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Fast simulation of quantum machine learning behind Qiskit primitives."""

from importlib.metadata import PackageNotFoundError, version

from qiskit_fused.acceleration import accelerate
from qiskit_fused.caches import release_memory
from qiskit_fused.compiler import CompiledCircuit, compile_circuit, fuse
from qiskit_fused.estimator import FusedEstimator
from qiskit_fused.gradient import FusedEstimatorGradient
from qiskit_fused.jobs import FusedJob
from qiskit_fused.options import FusedOptions
from qiskit_fused.plan import Plan
from qiskit_fused.qnn import FusedEstimatorQNN
from qiskit_fused.unsupported import UnsupportedInstruction

__all__ = [
    "CompiledCircuit",
    "FusedEstimator",
    "FusedEstimatorGradient",
    "FusedEstimatorQNN",
    "FusedJob",
    "FusedOptions",
    "Plan",
    "UnsupportedInstruction",
    "__version__",
    "accelerate",
    "compile_circuit",
    "fuse",
    "release_memory",
]

try:
    __version__ = version("qiskit-fused")
except PackageNotFoundError:  # on the path, but not installed
    __version__ = "0+source"

# SPDX-License-Identifier: Apache-2.0
"""Fast simulation of quantum machine learning behind Qiskit primitives.

A folder of this package imports only folders before it in this order: common, options, program, lowering, fusion,
compilation, engines, execution, inspection, distributed, primitives, torch, machine_learning.
"""

from importlib.metadata import PackageNotFoundError, version

from qiskit_fused.common import native as _native  # noqa: F401  # first, since it explains a missing extension
from qiskit_fused.common.caches import release_memory
from qiskit_fused.compilation.circuits import CompiledCircuit, compile_circuit
from qiskit_fused.execution.gpu_workers import gpu_executor
from qiskit_fused.inspection.plan import Plan, fuse
from qiskit_fused.lowering.errors import UnsupportedInstruction
from qiskit_fused.machine_learning.accelerate import accelerate
from qiskit_fused.machine_learning.estimator_qnn import FusedEstimatorQNN
from qiskit_fused.machine_learning.fidelity_kernel import FusedQuantumKernel
from qiskit_fused.machine_learning.kernel_losses import FusedSVCLoss, KernelAlignmentLoss
from qiskit_fused.machine_learning.projected_kernel import FusedProjectedQuantumKernel
from qiskit_fused.machine_learning.sampler_qnn import FusedSamplerQNN
from qiskit_fused.machine_learning.state_fidelity import FusedStateFidelity
from qiskit_fused.options import FusedOptions
from qiskit_fused.primitives.estimator import FusedEstimator
from qiskit_fused.primitives.estimator_gradient import FusedEstimatorGradient
from qiskit_fused.primitives.job import FusedJob
from qiskit_fused.primitives.natural_gradient import natural_gradient
from qiskit_fused.primitives.qgt import FusedQGT
from qiskit_fused.primitives.sampler import FusedSampler
from qiskit_fused.primitives.sampler_gradient import FusedSamplerGradient
from qiskit_fused.primitives.statevectors import statevectors, statevectors_and_vjp

__all__ = [
    "CompiledCircuit",
    "FusedEstimator",
    "FusedEstimatorGradient",
    "FusedEstimatorQNN",
    "FusedJob",
    "FusedOptions",
    "FusedProjectedQuantumKernel",
    "FusedQGT",
    "FusedQuantumKernel",
    "FusedSVCLoss",
    "FusedSampler",
    "FusedSamplerGradient",
    "FusedSamplerQNN",
    "FusedStateFidelity",
    "KernelAlignmentLoss",
    "Plan",
    "UnsupportedInstruction",
    "__version__",
    "accelerate",
    "compile_circuit",
    "fuse",
    "gpu_executor",
    "natural_gradient",
    "release_memory",
    "statevectors",
    "statevectors_and_vjp",
]

try:
    __version__ = version("qiskit-fused")
except PackageNotFoundError:  # on the path, but not installed
    __version__ = "0+source"

# SPDX-License-Identifier: Apache-2.0
"""What a user writes against the public API; `test_packaging` has mypy check it, strictly. It is never run."""

from typing import Any

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import efficient_su2
from typing_extensions import assert_type

import qiskit_fused
from qiskit_fused import (
    CompiledCircuit,
    FusedEstimator,
    FusedEstimatorGradient,
    FusedEstimatorQNN,
    FusedJob,
    FusedOptions,
    Plan,
    UnsupportedInstruction,
    accelerate,
    compile_circuit,
    fuse,
)

circuit: QuantumCircuit = efficient_su2(4)
weights = np.zeros((8, 32))

plan = fuse(circuit, "ZZZZ")
assert_type(plan, Plan)
assert_type(plan.num_sweeps, int)
assert_type(compile_circuit(circuit), CompiledCircuit)

estimator = FusedEstimator(options=FusedOptions(dtype="complex64"), seed=np.random.default_rng(0))
assert_type(estimator.options, FusedOptions)
job = estimator.run([(circuit, "ZZZZ", weights)], precision=0.0)
assert_type(job, FusedJob)
assert_type(job.metrics(), dict[str, Any])
assert_type(job.cancel(), bool)

FusedEstimator(device="cpu", num_threads=2, memory_limit="8GB", default_precision=0.1)
FusedEstimatorGradient(method="store", seed=3, progress=True)
gradient = FusedEstimatorGradient(estimator, dtype="complex64")
energy, slope = gradient.objective(compile_circuit(circuit), "ZZZZ", fixed={"θ[0]": 0.1})(weights[0, 1:])
assert_type(energy, float)
assert_type(slope, np.ndarray)
gradient.value_and_gradient(circuit, None, {circuit.parameters[0]: 0.1})

values, gradients = FusedEstimatorGradient(estimator).value_and_gradient(compile_circuit(circuit), "ZZZZ", weights)
assert_type(values, np.ndarray)
assert_type(gradients, np.ndarray)

model = accelerate(FusedEstimatorQNN(circuit=circuit, weight_params=circuit.parameters, seed=1), device="cpu")
assert_type(model, FusedEstimatorQNN)
inputs, slopes = model.vjp(None, weights[0], np.ones((1, 1)))
assert_type(inputs, np.ndarray | None)
assert_type(slopes, np.ndarray)

assert_type(qiskit_fused.__version__, str)


def is_supported(circuit: QuantumCircuit) -> bool:
    try:
        fuse(circuit)
    except UnsupportedInstruction:
        return False
    return True


compile_circuit(circuit).fused_program("all")  # type: ignore[arg-type]
fuse(circuit).memory("many")  # type: ignore[arg-type]
estimator.run(circuit, precision="exact")  # type: ignore[arg-type]
FusedEstimator(devcie="cpu")  # type: ignore[call-arg]
FusedEstimator(num_threads="two")  # type: ignore[arg-type]
FusedEstimatorGradient(method=1)  # type: ignore[arg-type]
FusedEstimatorQNN(circuit=circuit, fallback="no")  # type: ignore[arg-type]
accelerate(model, threads=2)  # type: ignore[call-arg]

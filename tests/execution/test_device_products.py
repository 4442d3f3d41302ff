# SPDX-License-Identifier: Apache-2.0
"""States of a CUDA device stay there for the products of kernels, fidelities and metric tensors.

An emulated device whose arrays NumPy refuses stands for CuPy: a product that mixes host and device is a TypeError.
"""

import numpy as np
import pytest
from cuda_emulation import missing_tools
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedOptions, FusedQGT, FusedStateFidelity, compile_circuit
from qiskit_fused.engines.cuda import availability
from qiskit_fused.execution import devices, fidelity_sizes, overlaps
from qiskit_fused.execution.fidelities import Fidelities
from qiskit_fused.execution.projections import Projections
from qiskit_fused.execution.statevectors import FinalStates

strict_device = pytest.importorskip("strict_device")

pytestmark = pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools()))

X, W = ParameterVector("x", 4), ParameterVector("w", 8)


@pytest.fixture
def runtime(monkeypatch):
    """An emulated device, which is the current CUDA device of the process."""
    runtime = strict_device.StrictRuntime()
    monkeypatch.setattr(availability, "usable_gpu", lambda: (runtime, ""))
    return runtime


def trainable():
    """Return a circuit of four qubits whose angles are inputs, weights and products of both."""
    circuit = real_amplitudes(4, reps=1, parameter_prefix="w").assign_parameters(list(W))
    return circuit.compose(zz_feature_map(4, reps=1).assign_parameters(list(X)))


def encoding():
    """Return a circuit of two of three qubits that starts in the amplitudes of its inputs."""
    circuit = QuantumCircuit(3)
    circuit.compose(raw_feature_vector(4).assign_parameters(list(X)), [2, 0], inplace=True)
    for k in range(8):
        (circuit.ry if k % 2 else circuit.rz)(W[k], (k // 2) % 2 * 2)
        circuit.cx(0, 2)
    return circuit


def gradients(function, left, right, cotangents):
    found = function.value_and_vjp(left, np.linspace(-1, 1, 8), cotangents, right)
    return [part for part in found if part is not None]


ATOL = {"complex128": 1e-11, "complex64": 5e-5}


@pytest.mark.parametrize("limit", [None, "40kB"])
@pytest.mark.parametrize("kind", [Fidelities, Projections])
@pytest.mark.parametrize("circuit", [trainable, encoding])
@pytest.mark.parametrize("is_symmetric", [True, False], ids=["symmetric", "two"])
def test_kernels_and_gradients_are_those_of_the_cpu(runtime, circuit, kind, is_symmetric, limit, dtype):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(9, 4)), None if is_symmetric else rng.normal(size=(7, 4))
    cotangents = rng.normal(size=(9, 9 if is_symmetric else 7))
    found, expected = (
        gradients(kind(circuit(), X, W, device=device, dtype=dtype, memory_limit=limit), left, right, cotangents)
        for device in ("cuda", "cpu")
    )
    assert len(found) == (3 if is_symmetric else 4)
    for result, reference in zip(found, expected):
        assert isinstance(result, np.ndarray) and result.dtype == np.float64
        np.testing.assert_allclose(result, reference, atol=ATOL[dtype])


def test_no_state_is_copied_to_the_host(runtime, monkeypatch, dtype):
    kinds, to_host = [], runtime.to_host
    recorded = lambda array: kinds.append(array.dtype.kind) or to_host(array)  # noqa: E731
    monkeypatch.setattr(runtime, "to_host", recorded)
    monkeypatch.setattr(strict_device.NAMESPACE, "asnumpy", recorded)
    rows, cotangents = np.random.default_rng(0).normal(size=(6, 4)), np.ones((6, 6))
    gradients(Fidelities(trainable(), X, W, device="cuda", dtype=dtype), rows, None, cotangents)
    FusedQGT(device="cuda", dtype=dtype).run([trainable()], [np.ones(12)]).result()
    assert kinds[-1] == "c" and set(kinds[:-1]) == {"f"}  # the last array is the tensor


def test_tiles_of_a_device_change_rounding_errors_alone(runtime, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(70, 4))
    function = Fidelities(trainable(), X, W, device="cuda")
    whole = function.values(rows, np.zeros(8))
    monkeypatch.setattr(fidelity_sizes, "_DEVICE_TILE_BYTES", 1)
    monkeypatch.setattr(overlaps, "_LEAST_TILE_ROWS", 8)
    np.testing.assert_allclose(function.values(rows, np.zeros(8)), whole, atol=1e-14)
    assert (np.diag(whole) == 1).all() and (whole == whole.T).all()


@pytest.mark.parametrize("kind", ["REAL", "COMPLEX"])
@pytest.mark.parametrize("limit", [None, "30kB"])
def test_metric_tensors_are_those_of_the_cpu(runtime, kind, limit, dtype):
    from qiskit_machine_learning.gradients import DerivativeType

    circuit, theta = efficient_su2(3, reps=1), ParameterVector("t", 3)
    circuit.cp(theta[0], 0, 2)
    circuit.crx(2 * theta[1], 1, 0)
    circuit.rzz(theta[0] * theta[2], 0, 1)
    values = np.random.default_rng(1).normal(size=circuit.num_parameters)
    found, expected = (
        FusedQGT(derivative_type=DerivativeType[kind], device=device, dtype=dtype, memory_limit=limit)
        .run([circuit], [values])
        .result()
        .qgts[0]
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found, expected, atol=ATOL[dtype])


def test_fidelities_of_pairs_are_those_of_the_cpu(runtime, dtype):
    first, second = real_amplitudes(3, reps=1), efficient_su2(3, reps=1)
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=(5, 6)), rng.normal(size=(5, 12))
    found, expected = (
        FusedStateFidelity(device=device, dtype=dtype).run([first] * 5, [second] * 5, left, right).result().fidelities
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found, expected, atol=ATOL[dtype])


def test_rows_that_do_not_fit_the_device_are_simulated_on_the_cpu(runtime, monkeypatch):
    rows, weights = np.random.default_rng(0).normal(size=(5, 4)), np.linspace(-1, 1, 8)
    expected = gradients(Fidelities(trainable(), X, W, device="cpu"), rows, None, np.ones((5, 5)))
    monkeypatch.setattr("qiskit_fused.execution.statevectors.choose_device", lambda *_: "cuda")
    runtime.memory = 300
    found = gradients(Fidelities(trainable(), X, W, device="auto"), rows, None, np.ones((5, 5)))
    for result, reference in zip(found, expected):
        np.testing.assert_allclose(result, reference, atol=1e-11)
    with pytest.raises(MemoryError):
        Fidelities(trainable(), X, W, device="cuda").values(rows, weights)


def test_products_run_on_the_cpu_where_cupy_cannot_multiply(runtime, caplog, monkeypatch):
    monkeypatch.setattr(devices, "_logged", set())
    rows = FinalStates(compile_circuit(trainable()), FusedOptions(device="cuda"), only_active=True, with_phase=False)
    assert rows.on_device(3).runtime is runtime
    values = np.random.default_rng(0).normal(size=(3, 4)), np.zeros(8)
    expected = Fidelities(trainable(), X, W, device="cuda").values(*values)
    runtime.product_fault = "cuBLAS cannot be used; pip install nvidia-cublas"
    assert rows.on_device(3) is rows
    np.testing.assert_allclose(Fidelities(trainable(), X, W, device="cuda").values(*values), expected, atol=1e-14)
    assert "products of states run on the CPU" in caplog.text and "pip install nvidia-cublas." in caplog.text

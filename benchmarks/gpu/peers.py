# SPDX-License-Identifier: Apache-2.0
"""The contenders of the GPU benchmark. Each maps angles to the values of all rows and the gradient of their mean.

``contender(parameters)`` takes float64 (B, num_parameters), inputs first, weights equal in all rows, and returns NumPy
values (B,) and the gradient of ``values.mean()`` with respect to the weights (num_weights,), as a training step needs
them. A contender may cut the batch into chunks that fit the device. With ``device = "cpu"`` all of them run without a
GPU, which tests them.
"""

from __future__ import annotations

import gc
import math
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from common.contender import Contender, Result
from common.numpy_adjoint import NumpyAdjoint
from common.workloads import Gate, Workload, diagonal_sum_of_z, qiskit_circuit, sum_of_z
from main import peers

_SHARE_OF_MEMORY = 0.8  # share of the free device memory that the states of a peer may take
_TUNING_AMPLITUDES = 2**27  # amplitudes of the rows with which blocks are chosen: 1 GiB, as busy as the whole batch


def encoded_ansatz(name: str, num_qubits: int, num_layers: int, batch: int, **options: Any) -> Workload:
    """Return RY(x) RX(x') on every qubit, then layers of RX RY RZ on every qubit and a ring of CZ."""
    n = num_qubits
    rotations = [Gate(axis, (q,), 3 * q + k) for q in range(n) for k, axis in enumerate(("rx", "ry", "rz"))]
    return Workload(
        name=name,
        num_qubits=n,
        num_layers=num_layers,
        layer=(*rotations, *(Gate("cz", (q, (q + 1) % n)) for q in range(n))),
        before=tuple(Gate(axis, (q,), q + k * n) for q in range(n) for k, axis in enumerate(("ry", "rx"))),
        after=(),
        num_inputs=2 * n,
        num_parameters=2 * n + 3 * n * num_layers,
        layer_stride=3 * n,
        batch=batch,
        **options,
    )


class GpuContender(Contender):
    """A contender that runs on a GPU.

    Attributes:
        call_seconds: `prepare` chooses `rows` such that a call takes about this long at most; set before `prepare`.
        stats: The statistics of the latest call.
    """

    precisions = ("complex64",)
    warm_up = None
    starts_turns_untimed = True  # memory is allocated again and clocks rise after another contender had the device
    call_seconds = 1.0

    def __init__(self, dtype: str, num_threads: int) -> None:
        super().__init__(dtype, num_threads)
        self.stats: dict[str, Any] = {}


class Fused(GpuContender):
    """qiskit-fused: one vector-Jacobian product on the CUDA engine."""

    label, package = "qiskit-fused", "qiskit-fused"

    def prepare(self, workload: Workload) -> None:
        from qiskit_fused import compile_circuit
        from qiskit_fused.compilation.observables import coerce_observables
        from qiskit_fused.engines.selection import select_engine

        circuit, _, _ = qiskit_circuit(workload)
        compiled = compile_circuit(circuit)
        self.operators = coerce_observables(sum_of_z(workload.num_qubits)).operators
        self.program, self.plan = compiled.program, compiled.fused_program(self.operators.support(workload.num_qubits))
        self.engine: Any = select_engine(self.device, self.num_threads)
        self.num_inputs, self.rows = workload.num_inputs, workload.batch

    def __call__(self, parameters: np.ndarray) -> Result:

        from qiskit_fused.engines.request import GradientRequest, Request, all_pairs

        rows = len(parameters)
        summed = np.arange(self.program.num_columns) >= self.num_inputs
        gradient = GradientRequest(cotangents=np.full(rows, 1 / rows), summed=summed)
        request = Request(self.program.columns(parameters), all_pairs(rows, 1), gradient, dtype=self.dtype)
        evaluation = self.engine.evaluate(self.plan, self.operators, request)
        assert evaluation.gradients is not None
        self.stats = evaluation.stats
        return evaluation.values, evaluation.gradients[:, self.num_inputs :].sum(axis=0)

    def row_work(self) -> dict[str, int]:
        """Return the cost of a row: the flops of its sweeps, and the bytes that they read and write in memory or L2."""
        from qiskit_fused.engines.cpu import costs

        flops = costs.flops(self.plan, gradient=True)
        if self.engine.name != "cuda":
            return {"flops": flops, "bytes_moved": costs.bytes_moved(self.plan, self.dtype)}
        from qiskit_fused.engines.cuda.formats import REGISTER_QUBITS, amplitude_format
        from qiskit_fused.engines.cuda.passes import make_passes

        amplitudes = amplitude_format(self.dtype, self.plan.is_real)
        tile_qubits = self.engine.tile_qubits(amplitudes, self.plan.num_qubits)
        passes = make_passes(self.plan, tile_qubits, REGISTER_QUBITS[amplitudes], self.plan.is_real)
        state = np.dtype(amplitudes).itemsize << passes.num_address_bits
        # First, psi is cleared. Every pass reads and writes psi. A backward pass reads and writes lam too, except the
        # last pass, which writes nothing. Between the sweeps, psi is read and lam is written.
        return {"flops": flops, "bytes_moved": (1 + 2 * len(passes.passes) + 2 + 4 * len(passes.passes) - 2) * state}

    def synchronize(self) -> None:
        if self.device == "cuda":
            import cupy

            cupy.cuda.get_current_stream().synchronize()

    def release(self) -> None:
        if self.device == "cuda":
            import cupy

            cupy.get_default_memory_pool().free_all_blocks()

    def device_bytes(self) -> int | None:
        if self.device != "cuda":
            return None
        import cupy

        return int(cupy.get_default_memory_pool().total_bytes())  # the peak, since only `release` shrinks the pool


class CpuReference(Fused):
    """The CPU engine in double precision, with which the others are compared."""

    label = "qiskit-fused, CPU"


class NumpyReference(GpuContender):
    """A gate-by-gate adjoint in NumPy, for tiny circuits."""

    label, package = "numpy", "numpy"

    def prepare(self, workload: Workload) -> None:
        self.adjoint = NumpyAdjoint(self.dtype, self.num_threads)
        self.adjoint.prepare(workload)

    def __call__(self, parameters: np.ndarray) -> Result:
        values, gradients = self.adjoint(parameters)
        return values, gradients.mean(axis=0)


@dataclass(frozen=True)
class _Settings:
    """The settings of triton-qml.

    Attributes:
        block: The number of qubits of a fused block, 4 at most.
        expanded: True if each weight is given once per row. Autograd then sums all gradients of a layer at once, not
            one weight after the other.
        segment: The number of layers of a checkpointed segment; 0 for no checkpoints.
        rows: The number of rows of a chunk.
    """

    block: int
    expanded: bool
    segment: int
    rows: int

    def __str__(self) -> str:
        how = f"checkpoints every {self.segment} layers" if self.segment else "no checkpoints"
        return f"{self.block}-qubit blocks, {'expanded ' if self.expanded else ''}weights, {how}, {self.rows} rows"


class TritonQml(GpuContender):
    """triton-qml: rotations in blocks of up to 4 qubits, a kernel for all CZ of a layer, autograd, checkpoints.

    Tuned for each workload: block size, the form of the weights, and checkpoints or smaller chunks. The observable is
    one weighted norm in PyTorch instead of the library's n calls for n Pauli strings, which would be slower.
    """

    label, package = "triton-qml", "triton-qml"

    def prepare(self, workload: Workload) -> None:
        import torch
        from triton_qml import FunctionalQuantumSimulator

        if self.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        # Without a GPU, the kernels run only under TRITON_INTERPRET=1; the library also has a backend with einsum.
        kernels = self.device == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
        n, self.torch, self.workload = workload.num_qubits, torch, workload
        self.real = torch.float32 if self.dtype == "complex64" else torch.float64
        self.simulator = FunctionalQuantumSimulator(
            n, device=self.device, backend_type="triton" if kernels else "pytorch", dtype_str=self.dtype
        )
        diagonal = torch.tensor(diagonal_sum_of_z(n), dtype=self.real, device=self.device)
        self.expectation = _diagonal_expectation(torch, diagonal)
        self.state_bytes = np.dtype(self.dtype).itemsize << n
        self._tune(self.call_seconds)

    def _tune(self, seconds: float) -> None:
        n, batch, layers = self.workload.num_qubits, self.workload.batch, self.workload.num_layers
        rows = max(1, min(batch, _TUNING_AMPLITUDES >> n))
        sizes = sorted({min(size, n) for size in (4, 3, 2)}, reverse=True)
        shapes = [_Settings(size, expanded, 0, rows) for size in sizes for expanded in (False, True)]
        best = min(shapes, key=lambda shape: self._seconds_per_row_and_layer(shape, min(layers, 2)))
        blocks = -(-n // best.block)
        # With this length, as many states are kept at the ends of segments as within one segment.
        segment = max(1, round(math.sqrt(layers / blocks)))
        strategies = []
        for length, states in ((0, blocks * layers), (segment, layers / segment + blocks * segment)):
            fitting = int(_SHARE_OF_MEMORY * self._free_bytes() // ((states + 6) * self.state_bytes))
            if fitting:
                chunks = -(-batch // fitting)
                strategies.append(replace(best, segment=length, rows=-(-batch // chunks)))
            if fitting >= batch:
                break  # checkpoints would save no memory
        if not strategies:
            raise RuntimeError(f"a single row of {n} qubits and {layers} layers does not fit the device")
        tried = {one: self._seconds_per_row_and_layer(one, min(layers, 2 * segment)) for one in strategies}
        self.chosen = min(tried, key=tried.__getitem__)
        affordable = int(seconds / (tried[self.chosen] * layers * self.chosen.rows))
        self.rows = min(batch, max(1, affordable) * self.chosen.rows)
        self.settings = str(self.chosen)

    def _seconds_per_row_and_layer(self, settings: _Settings, num_layers: int) -> float:
        parameters = replace(self.workload, batch=settings.rows).parameters(0)
        times = []
        for _ in range(3):  # the first call compiles
            start = time.perf_counter()
            self._evaluate(parameters, settings, num_layers)
            times.append(time.perf_counter() - start)
        self.release()
        return min(times[1:]) / (settings.rows * num_layers)

    def _free_bytes(self) -> int:
        return self.torch.cuda.mem_get_info()[0] if self.device == "cuda" else 2**28

    def __call__(self, parameters: np.ndarray) -> Result:
        return self._evaluate(parameters, self.chosen, self.workload.num_layers)

    def _evaluate(self, parameters: np.ndarray, settings: _Settings, num_layers: int) -> Result:
        torch, inputs = self.torch, self.workload.num_inputs
        stride = self.workload.layer_stride
        data = torch.tensor(np.ascontiguousarray(parameters[:, :inputs].T), dtype=self.real, device=self.device)
        weights = torch.tensor(parameters[0, inputs : inputs + num_layers * stride], dtype=self.real)
        weights = weights.to(self.device).requires_grad_()
        values = []
        for start in range(0, len(parameters), settings.rows):
            rows = data[:, start : start + settings.rows].contiguous()
            found = self._values(rows, weights.view(num_layers, stride), settings)
            (found.sum() / len(parameters)).backward()
            values.append(found.detach())
        return torch.cat(values).cpu().numpy(), weights.grad.cpu().numpy()

    def _values(self, data: Any, weights: Any, settings: _Settings) -> Any:
        """Return the values (rows,) of inputs (num_inputs, rows) and weights (layers, weights of a layer)."""
        from torch.utils.checkpoint import checkpoint

        psi = self.simulator.create_initial_state(data.shape[1])
        psi = self._apply(psi, self.workload.before, data.unbind(0), settings.block)
        run = partial(self._layers, block=settings.block, expanded=settings.expanded)
        if not settings.segment:
            return self.expectation(run(psi, weights))
        for part in weights.split(settings.segment):
            psi = checkpoint(run, psi, part, use_reentrant=False, preserve_rng_state=False)
        return self.expectation(psi)

    def _layers(self, psi: Any, weights: Any, *, block: int, expanded: bool) -> Any:
        for layer in weights.unbind(0):
            angles = layer[:, None].expand(-1, len(psi)).contiguous() if expanded else layer
            psi = self._apply(psi, self.workload.layer, angles.unbind(0), block)
        return psi

    def _apply(self, psi: Any, gates: tuple[Gate, ...], angles: Any, block: int) -> Any:
        """Apply rotations in blocks of neighbouring qubits, then the other gates, all CZ; `gates` is ordered so."""
        n = self.workload.num_qubits
        count = -(-n // block)
        rotations = [gate for gate in gates if gate.is_rotation]
        for _, members in groupby(rotations, key=lambda gate: gate.qubits[0] * count // n):
            operations = [[gate.name, gate.qubits[0], angles[gate.column]] for gate in members]
            psi = self.simulator.apply_1q2q_pauli_rotation_gate_sequence(psi, operations)
        pairs = [list(gate.qubits) for gate in gates if not gate.is_rotation]
        return self.simulator.apply_fused_cz_gate(psi, pairs) if pairs else psi

    def synchronize(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def release(self) -> None:
        gc.collect()
        if self.device == "cuda":
            self.torch.cuda.empty_cache()
            self.torch.cuda.reset_peak_memory_stats()

    def device_bytes(self) -> int | None:
        return self.torch.cuda.max_memory_allocated() if self.device == "cuda" else None


def _diagonal_expectation(torch: Any, diagonal: Any) -> Any:
    """Return the function psi (rows, 2**n) -> sum of diagonal |psi|^2 (rows,); its gradient keeps one state."""

    class DiagonalExpectation(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, psi: Any) -> Any:
            lam = diagonal * psi
            context.save_for_backward(lam)
            return torch.linalg.vecdot(psi, lam).real

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            return context.saved_tensors[0] * (2 * gradient)[:, None]

    return DiagonalExpectation.apply


class TensorCircuit(GpuContender, peers.TensorCircuit):
    """tensorcircuit-ng on JAX: jit of the gradient of a vmap, with a scan over layers that are recomputed backward."""

    def prepare(self, workload: Workload) -> None:
        os.environ["JAX_PLATFORMS"] = self.device
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        os.environ["XLA_PYTHON_CLIENT_ALLOCATOR"] = "platform"  # gives memory back, which other contenders need
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")  # the default on a GPU is TF32
        state_of = self.states(workload, checkpoints=True)
        n, layers = workload.num_qubits, workload.num_layers
        diagonal = np.asarray(diagonal_sum_of_z(n), dtype=self.real)

        def value(weights: Any, inputs: Any) -> Any:
            return jax.numpy.sum(diagonal * jax.numpy.abs(state_of(weights, inputs)) ** 2)

        def total(weights: Any, inputs: Any) -> Any:
            values = jax.vmap(value, in_axes=(None, 0))(weights, inputs)
            return values.sum(), values

        self.call = jax.jit(jax.value_and_grad(total, has_aux=True))
        states = layers + len(workload.layer) + 10  # states between layers, and states within one layer
        fitting = int(_SHARE_OF_MEMORY * self._free_bytes() // (states * np.dtype(self.dtype).itemsize << n))
        if not fitting:
            raise RuntimeError(f"a single row of {n} qubits and {layers} layers does not fit the device")
        self.chunk = -(-workload.batch // -(-workload.batch // fitting))
        self.settings = f"{self.chunk} rows, a checkpoint every layer"
        times = []
        for _ in range(2):  # the first call compiles
            start = time.perf_counter()
            self(replace(workload, batch=self.chunk).parameters(0))
            times.append(time.perf_counter() - start)
        self.rows = min(workload.batch, max(1, int(self.call_seconds / times[1])) * self.chunk)

    def _free_bytes(self) -> int:
        if self.device != "cuda":
            return 2**28
        stats = self.jax.devices()[0].memory_stats() or {}
        import cupy  # JAX's platform allocator has no statistics, so CuPy reads the free memory

        return int(stats.get("bytes_limit") or cupy.cuda.runtime.memGetInfo()[0])

    def __call__(self, parameters: np.ndarray) -> Result:
        inputs = parameters[:, : self.workload.num_inputs].astype(self.real)
        weights = parameters[0, self.workload.num_inputs :].astype(self.real)
        values, gradient = [], np.zeros(len(weights))
        for start in range(0, len(parameters), self.chunk):
            (_, found), part = self.call(weights, inputs[start : start + self.chunk])
            values.append(np.asarray(found))
            gradient += np.asarray(part)
        return np.concatenate(values), gradient / len(parameters)


class LightningGpu(GpuContender):
    """PennyLane lightning.gpu: adjoint Jacobian row after row through the device API (lightning.qubit on a CPU)."""

    label, package = "lightning.gpu", "pennylane-lightning"
    _ROWS = 2  # lightning has no batches, so the time of two rows is extrapolated to all rows

    def prepare(self, workload: Workload) -> None:
        self.workload, self.rows, self.settings = workload, min(workload.batch, self._ROWS), "row after row"
        self.tapes = {self.rows: self._make_tapes(self.rows)}

    def _make_tapes(self, rows: int) -> peers.Lightning:
        tapes = peers.Lightning(self.dtype, self.num_threads)
        tapes.prepare(replace(self.workload, batch=rows))
        if self.device == "cuda":
            import pennylane as qml
            from pennylane.devices import ExecutionConfig

            complex_type = np.dtype(self.dtype).type
            tapes.device = qml.device("lightning.gpu", wires=self.workload.num_qubits, c_dtype=complex_type)
            tapes.config = tapes.device.setup_execution_config(ExecutionConfig(gradient_method="adjoint"))
        return tapes

    def __call__(self, parameters: np.ndarray) -> Result:
        rows = len(parameters)
        if rows not in self.tapes:
            self.tapes[rows] = self._make_tapes(rows)
        values, gradients = self.tapes[rows](parameters)
        return values, gradients.mean(axis=0)


PEERS: dict[str, type[GpuContender]] = {
    "triton-qml": TritonQml,
    "tensorcircuit": TensorCircuit,
    "lightning": LightningGpu,
}

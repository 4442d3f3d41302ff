# SPDX-License-Identifier: Apache-2.0
"""Engines run plans. All take the same question and give the same answer; they differ in where and how fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from ..observables import Observables
    from ..plan import Plan


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an engine returns.

    Attributes:
        values: float64 (N,), the expectation value of each (row, observable) pair.
        gradients: float64 (N, C), 2 Re <psi|O|d psi/d column> (with ``imaginary``: 2 Im), or None if not asked for.
        stats: what ran, such as device, sweeps, chunks and bytes.
        answer: what ``meanwhile`` returned.
    """

    values: np.ndarray
    gradients: np.ndarray | None
    stats: dict[str, Any] = field(default_factory=dict)
    answer: Any = None


class Engine(Protocol):
    """The protocol of engines."""

    def evaluate(
        self,
        plan: Plan,
        observables: Observables,
        columns: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray],
        *,
        gradient: bool = False,
        imaginary: bool = False,
        dtype: str = "complex128",
        meanwhile: Callable[[], Any] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Evaluation:
        """Evaluate pairs of rows and observables.

        Args:
            plan: the planned circuit.
            observables: K observables on the circuit's qubits.
            columns: float64 (B, C), the columns of the program (see `Program.columns`).
            pairs: row int32 (N,), ascending, and observable int32 (N,).
            gradient: also return derivatives with respect to every column.
            imaginary: with ``gradient``, return 2 Im <psi|O|d psi> instead of 2 Re; generators are traceless.
            dtype: number format of the amplitudes, "complex64" or "complex128".
            meanwhile: called once, beside the sweeps where the engine can.
            stop: asked now and then while long work runs; True ends it with a RuntimeError.
        """


def select_engine(device: str, num_threads: int) -> Engine:
    """Return the engine of a device.

    Args:
        device: "cpu", "reference", "cuda", or "auto" for the fastest that is usable here.
        num_threads: threads at most, for the CPU engine.

    Raises:
        RuntimeError: when the device cannot be used, with the reason.
    """
    if device == "reference":
        from .reference import ReferenceEngine

        return ReferenceEngine()
    if device == "cuda":
        raise RuntimeError(
            "device='cuda' is not available: this version has no CUDA engine; use device='auto' or 'cpu'."
        )
    from .cpu import CpuEngine

    return CpuEngine(num_threads)

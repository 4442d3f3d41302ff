# SPDX-License-Identifier: Apache-2.0
"""The interface of a contender, whichever library it calls.

A contender is built for a precision. ``prepare(workload)`` does everything that does not depend on the angles, and
``contender(parameters)`` maps angles (batch, num_parameters) to values (batch,) and gradients with respect to the
weights (batch, num_weights). A benchmark times the call alone. A call of a sampler returns an object of its library.
``answer`` makes arrays of this object, outside the measured time. Libraries are imported in ``prepare``, so that each
process loads only its own.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from common.workloads import Workload, efficient_su2

Result = tuple[np.ndarray, np.ndarray]


class Contender:
    """A way to compute values and gradients.

    Attributes:
        label: The name in the tables.
        precisions: complex64, complex128 or both.
        package: The distribution whose version is recorded; the contender is left out where it is not installed.
        needs_diagonal: True for contenders that take observables of Z and I only.
        networks: True for contenders that go through EstimatorQNN and take network workloads only.
        is_timed: False for a contender that only checks the others.
        sample_rows: The number of rows it is given where the workload has more; its time is extrapolated and marked.
        part: The number of first parameters whose part of a Hessian it computes; its time is extrapolated to the whole
            Hessian by the number of different elements, and marked. None for all parameters.
        most_work: The largest `work` that it is given: about 10 s a call, or the memory that a machine has.
        warm_up: A tiny workload that loads all libraries before memory is measured; None for no such workload.
        starts_turns_untimed: True if each turn of short calls starts with a call that is not timed.
        device: "cpu" or "cuda".
        rows: The number of rows of a timed call, if `prepare` chooses it; None for all rows that it is given.
        settings: How the contender runs, in words.
    """

    label: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("complex64", "complex128")
    package: ClassVar[str]
    needs_diagonal: ClassVar[bool] = False
    networks: ClassVar[bool] = False
    is_timed: ClassVar[bool] = True
    sample_rows: ClassVar[int | None] = None
    part: ClassVar[int | None] = None
    most_work: ClassVar[float] = math.inf
    warm_up: ClassVar[Workload | None] = efficient_su2(2, 1, batch=2)
    starts_turns_untimed: ClassVar[bool] = False
    device: str = "cpu"
    rows: int | None = None
    settings: str = ""

    def __init__(self, dtype: str, num_threads: int) -> None:
        self.dtype = dtype
        self.num_threads = num_threads

    def anew(self, **attributes: Any) -> Contender:
        """Return a contender of this kind that knows of no workload yet, with attributes that `prepare` reads."""
        new = type(self)(self.dtype, self.num_threads)
        vars(new).update(attributes)
        return new

    def prepare(self, workload: Workload) -> None:
        raise NotImplementedError

    def __call__(self, parameters: np.ndarray) -> Any:
        raise NotImplementedError

    def answer(self, result: Any) -> Result:
        """Return the result of a call as two arrays, with which contenders are compared."""
        return result

    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def release(self) -> None:
        """Give memory back to the device, for the next contender."""

    def device_bytes(self) -> int | None:
        """Return the most device memory in use since `release`, in bytes; None where it is unknown."""
        return None

    @classmethod
    def work(cls, workload: Workload) -> float:
        """Count the amplitudes that the gates of all rows change on the way forward."""
        return float(len(list(workload.gates())) * workload.batch << workload.num_qubits)


def growth(contender: type[Contender], workload: Workload) -> float:
    """Return how many times as many different elements a Hessian has as the part that the contender computes."""
    part, count = contender.part, workload.num_weights if contender.part else 0
    return 1.0 if part is None or part >= count else count * (count + 1) / (part * (part + 1))


def limited(contender: type[Contender], workload: Workload) -> Workload:
    """Return the workload with no more rows than the contender is given."""
    rows = contender.sample_rows
    return workload if rows is None or rows >= workload.batch else dataclasses.replace(workload, batch=rows)


def too_large(contender: type[Contender], workload: Workload) -> str | None:
    """Return the reason why a contender is not given a workload; None if it is given it."""
    if contender.needs_diagonal and getattr(workload, "is_ising", False):
        return "left out: it is driven with observables of Z only"
    work = contender.work(workload)
    if work <= contender.most_work:
        return None
    return f"left out: {work:.0e} updates of amplitudes, its limit here is {contender.most_work:.0e}"

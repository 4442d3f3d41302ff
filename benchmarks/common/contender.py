# SPDX-License-Identifier: Apache-2.0
"""What a contender has to offer, whichever library it is.

A contender is built for a precision, then ``prepare(workload)`` does everything that does not depend on the angles, and
``contender(parameters)`` maps angles (batch, num_parameters) to values (batch,) and gradients with respect to the
weights (batch, num_weights). Everything between the two arrays is what is timed. Libraries are imported in
``prepare`` so that each worker process loads only its own.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import numpy as np

from common.workloads import Workload

Result = tuple[np.ndarray, np.ndarray]


class Contender:
    """What a contender has to offer.

    Attributes:
        label: its name in the table.
        precisions: complex64, complex128 or both.
        package: the distribution whose version is recorded, and without which it is skipped.
        networks: True for contenders that go through EstimatorQNN and take network workloads only.
        sample_rows: rows it is given where the workload has more; the time is extrapolated and marked.
        most_work: the largest `work` that it is given, some 10 s a call or the memory that a machine has.
    """

    label: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]] = ("complex64", "complex128")
    package: ClassVar[str]
    networks: ClassVar[bool] = False
    sample_rows: ClassVar[int | None] = None
    most_work: ClassVar[float] = math.inf

    def __init__(self, dtype: str, num_threads: int) -> None:
        self.dtype = dtype
        self.num_threads = num_threads

    def anew(self) -> Contender:
        """Return one that knows of no workload yet."""
        return type(self)(self.dtype, self.num_threads)

    def prepare(self, workload: Workload) -> None:
        raise NotImplementedError

    def __call__(self, parameters: np.ndarray) -> Result:
        raise NotImplementedError

    @classmethod
    def work(cls, workload: Workload) -> float:
        """Count the amplitudes that the gates of all rows change on the way forward."""
        return float(len(list(workload.gates())) * workload.batch << workload.num_qubits)


def limited(contender: type[Contender], workload: Workload) -> Workload:
    """Return the workload with no more rows than the contender is given."""
    rows = contender.sample_rows
    return workload if rows is None or rows >= workload.batch else dataclasses.replace(workload, batch=rows)


def too_large(contender: type[Contender], workload: Workload) -> str | None:
    """Say why a contender is not given a workload; None if it is."""
    work = contender.work(workload)
    if work <= contender.most_work:
        return None
    return f"left out: {work:.0e} updates of amplitudes, its limit here is {contender.most_work:.0e}"

# SPDX-License-Identifier: Apache-2.0
"""Rooflines: the flop/s of measured runs, drawn over their flops per byte, below the ceilings of the machine.

A run that executes r flops per byte moved reaches at most ``min(F, r * B)`` flop/s, where F is the highest rate of
flops of the machine in flop/s and B its highest bandwidth in bytes/s. A run with a small r is bound by bandwidth, the
slanted roof; every other run is bound by the multiply-adds of the cores, the flat roof.

Source: Williams, Waterman and Patterson, CACM 52, 65 (2009).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qiskit_fused.common.text import short_text
from qiskit_fused.engines.cpu.engine import fma_peak
from qiskit_fused.inspection.drawing.draw import BLUE, GREEN, PURPLE, VERMILION, new_figure
from qiskit_fused.inspection.plan import Plan
from qiskit_fused.options import FusedOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CACHED_BYTES = 128 << 10  # bytes of an array: two arrays fit into the second-level cache of a core, not into the first
_MEMORY_BYTES = 256 << 20  # bytes of all arrays together: more than the caches hold
_REPEATS = 7  # number of timings, of which the fastest counts


@dataclass(frozen=True)
class Ceilings:
    """The highest rates of flops and bytes of a machine. `measure_ceilings` measures them.

    >>> ceilings = Ceilings("complex128", num_threads=1, flops_per_second=5e10,
    ...                     cache_bytes_per_second=1e11, memory_bytes_per_second=2e10)
    >>> ceilings.flops_per_second / ceilings.memory_bytes_per_second  # flops per byte at the corner of the memory roof
    2.5

    Attributes:
        dtype: number format of the amplitudes, "complex64" or "complex128"; flops multiply and add their real numbers.
        num_threads: number of threads that work at the same time.
        flops_per_second: rate of multiply-adds on registers, in flop/s; a multiply-add is two flops.
        cache_bytes_per_second: rate of copies within the caches of the cores, in bytes/s read plus written.
        memory_bytes_per_second: rate of copies in memory, in bytes/s read plus written.
    """

    dtype: str
    num_threads: int
    flops_per_second: float
    cache_bytes_per_second: float
    memory_bytes_per_second: float


@dataclass(frozen=True)
class Run:
    """A measured evaluation of a plan.

    >>> from qiskit import QuantumCircuit
    >>> from qiskit_fused import fuse
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.ry(0.1, 0)
    >>> _ = circuit.cx(0, 1)
    >>> run = Run("two qubits", fuse(circuit), seconds=1e-6, num_rows=10)
    >>> run.flops_per_second == 10 * run.plan.flops() / 1e-6
    True

    Attributes:
        label: name of the run in the picture.
        plan: the plan that ran.
        seconds: time of all rows together, in seconds.
        num_rows: number of rows of parameter values.
        dtype: number format of the amplitudes.
        gradient: whether gradients were computed with the values.
    """

    label: str
    plan: Plan
    seconds: float
    num_rows: int = 1
    dtype: str = "complex128"
    gradient: bool = True

    @property
    def flops_per_second(self) -> float:
        """Flops of the sweeps of all rows, per second of the whole run."""
        return self.num_rows * self.plan.flops(self.gradient) / self.seconds

    @property
    def flops_per_byte(self) -> float:
        """Flops of the sweeps per byte that they move."""
        return self.plan.flops(self.gradient) / self.plan.bytes_moved(self.dtype, gradient=self.gradient)


def measure_ceilings(dtype: str = "complex128", num_threads: int | None = None) -> Ceilings:
    """Measure the ceilings of this machine. Each rate is the best of several tries.

    Args:
        dtype: number format of the amplitudes.
        num_threads: number of threads; None is the default of the option ``num_threads``.

    Raises:
        ValueError: for a dtype or a number of threads that is not allowed.

    Cost: about one second and 256 MiB.
    """
    options = FusedOptions(dtype=dtype, num_threads=num_threads)
    threads = options.resolve_num_threads()
    return Ceilings(
        dtype=dtype,
        num_threads=threads,
        flops_per_second=max(fma_peak(dtype, threads) for _ in range(3)),
        cache_bytes_per_second=threads * _copy_rate(_CACHED_BYTES, 1),
        memory_bytes_per_second=_copy_rate(_MEMORY_BYTES // (2 * threads), threads),
    )


def _copy_rate(num_bytes: int, num_threads: int) -> float:
    """Return the highest rate, in bytes/s read plus written, of concurrent copies of ``num_bytes`` per thread."""
    sources = [np.full(num_bytes // 8, 1.0) for _ in range(num_threads)]
    targets = [np.zeros_like(source) for source in sources]
    copies = max((1 << 22) // num_bytes, 1)

    def copy(thread: int) -> None:
        for _ in range(copies):
            np.copyto(targets[thread], sources[thread])

    with ThreadPoolExecutor(num_threads) as pool:
        seconds = min(_seconds(lambda: list(pool.map(copy, range(num_threads)))) for _ in range(_REPEATS))
    return 2 * num_bytes * copies * num_threads / seconds


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def draw_roofline(runs: Sequence[Run], ceilings: Ceilings) -> Figure:
    """Draw runs below the ceilings of the machine on which they ran.

    Args:
        runs: measured evaluations, in the number format of the ceilings and with as many threads.
        ceilings: the ceilings, see `measure_ceilings`.

    Returns:
        A matplotlib figure with one mark for each run.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if ``runs`` is empty, or if a run has another number format than the ceilings.
    """
    if not runs:
        raise ValueError("runs is empty; allowed: one run or more.")
    for run in runs:
        if run.dtype != ceilings.dtype:
            raise ValueError(
                f"run {run.label!r} is in {run.dtype} and the ceilings are of {ceilings.dtype}; "
                f"use measure_ceilings({run.dtype!r})."
            )
    figure = new_figure(8, 4)
    axes = figure.subplots()
    peak = ceilings.flops_per_second
    roofs = (("cache", ceilings.cache_bytes_per_second, GREEN), ("memory", ceilings.memory_bytes_per_second, PURPLE))
    corners = [peak / rate for _, rate, _ in roofs]
    points = [run.flops_per_byte for run in runs]
    left, right = min([*points, *corners]) / 3, 3 * max([*points, *corners])
    axes.loglog((min(corners), right), (peak, peak), color=BLUE, linewidth=2,
                label=f"multiply-adds, {short_text(peak)}flop/s")  # fmt: skip
    for name, rate, color in roofs:
        x = np.array([left, peak / rate])
        axes.loglog(x, rate * x, color=color, linewidth=2, label=f"{name}, {short_text(rate)}B/s")
    markers = "osD^vP*X"
    for number, run in enumerate(runs):
        axes.loglog(
            [run.flops_per_byte],
            [run.flops_per_second],
            markers[number % len(markers)],
            color=VERMILION,
            markeredgecolor="black",
            label=f"{run.label}: {run.flops_per_second / peak:.0%} of the peak",
        )
    lowest = min([*(run.flops_per_second for run in runs), ceilings.memory_bytes_per_second * left])
    axes.set(xlim=(left, right), ylim=(lowest / 2, 2.5 * peak), xlabel="flops for each byte moved", ylabel="flop/s")
    axes.set_title(f"{ceilings.num_threads} thread{'s' * (ceilings.num_threads > 1)}, {ceilings.dtype}", fontsize=9)
    axes.grid(which="major", color="#DDDDDD")
    figure.legend(fontsize=8, loc="outside right upper", frameon=False)
    return figure

# SPDX-License-Identifier: Apache-2.0
"""A table that compares the methods of the backward pass: states, bytes, sweeps and time for a batch of rows."""

from __future__ import annotations

from dataclasses import dataclass

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.display import ShownAsText
from qiskit_fused.common.text import count_text
from qiskit_fused.engines.checkpointing import num_steps
from qiskit_fused.engines.cpu.costs import num_positions
from qiskit_fused.engines.cpu.memory import Counts, Footprint
from qiskit_fused.engines.cpu.method import Options, fewest_states, methods_by_speed, relative_time
from qiskit_fused.fusion.fused_program import FusedProgram

_AUTO = "  <- method='auto'"  # marks the row that method='auto' takes on each device


@dataclass(frozen=True)
class MethodCost:
    """The cost of a batch with one method.

    Attributes:
        device: "cpu" or "cuda".
        method: name of the method.
        num_states: number of statevectors kept per row, without the cotangent.
        num_bytes: predicted peak in bytes; for a batch that runs in parts, the peak of one part.
        forward: steps executed forward, recomputed ones included, in units of one forward sweep.
        time: estimated from operations, relative to "reverse" on the same device.
        fits: whether the bytes are within the limit.
        is_auto: whether ``method="auto"`` takes this method.
    """

    device: str
    method: str
    num_states: int
    num_bytes: int
    forward: float
    time: float
    fits: bool
    is_auto: bool

    def __str__(self) -> str:
        fits = f"{'yes' if self.fits else 'no'}{_AUTO if self.is_auto else ''}"
        memory = format_bytes(self.num_bytes)
        return (
            f"  {self.device:<8}{self.method:<12}{self.num_states:>8,}{memory:>12}{self.forward:>10.2f}"
            f"{self.time:>8.2f}  {fits}"
        )


@dataclass(frozen=True, repr=False)
class Report(ShownAsText):
    """Costs of the methods, compared; ``print`` shows a table. It lists a GPU whether this machine has one or not.

    Attributes:
        title: the batch and the limit, in words.
        costs: one entry for each method on the CPU, several for "checkpoint", and one for a GPU.
    """

    title: str
    costs: tuple[MethodCost, ...]

    def short_text(self) -> str:
        """Return the line that ``repr`` shows."""
        return f"Report({self.title!r}, {count_text(len(self.costs), 'row')})"

    def __str__(self) -> str:
        columns = f"  {'device':<8}{'method':<12}{'states':>8}{'memory':>12}{'forward':>10}{'time':>8}"
        head = f"{columns}  fits, and what method='auto' takes on each device"
        return "\n".join([self.title, head, *map(str, self.costs)])


def report(fused: FusedProgram, counts: Counts, num_threads: int, limit: int) -> Report:
    """Compare the methods for a batch with gradients.

    "checkpoint" is listed with as many states as fit into the limit, and with the fewest states for which no step is
    executed more than 2, 3 or 5 times.

    Args:
        fused: the fused program.
        counts: the rows, pairs and number format of the batch.
        num_threads: number of threads of the CPU engine.
        limit: limit in bytes.

    Cost: some seconds for circuits of a million rotations, to find the passes of the GPU.
    """
    # Most processes print no report, and the CUDA engine's modules would take 4 % of the import of qiskit_fused.
    from qiskit_fused.engines.cuda.memory import predict

    footprint = Footprint(fused, counts.dtype)
    within = Options(footprint, counts, num_threads, limit, None)
    positions = num_positions(fused, imaginary=counts.imaginary)
    kept = {fewest_states(positions, repetitions) for repetitions in (2, 3, 5)}
    fitting = within.choose("checkpoint")
    if fitting is not None:
        kept.add(fitting.method.num_states or 1)
    rows = [("reverse", 0), ("store", positions)]
    auto = next((name for name in methods_by_speed(footprint, counts, "auto") if within.choose(name)), None)
    rows += [("checkpoint", num_states) for num_states in sorted(kept - {positions}, reverse=True)]
    costs = []
    for name, num_states in rows:
        demand = within.threads_for(num_states)
        threads, num_bytes = demand or (num_threads, within.total(1, num_states))
        all_working, working = (footprint.side_by_side(counts.num_rows, count)[1] for count in (num_threads, threads))
        costs.append(
            MethodCost(
                device="cpu",
                method=name,
                num_states=max(num_states, 1),
                num_bytes=num_bytes,
                forward=num_steps(positions, num_states) / positions if num_states else 1.0,
                time=relative_time(fused, num_states, counts.imaginary) * all_working / working,
                fits=demand is not None,
                is_auto=name == auto,
            )
        )
    on_gpu = predict(
        fused,
        counts.num_rows,
        dtype=counts.dtype,
        num_observables=counts.num_pairs // max(counts.num_rows, 1),
        num_outcomes=counts.num_outcomes,
        limit=limit,
    )
    fits = on_gpu.num_chunks > 0
    costs.append(MethodCost("cuda", "reverse", 1, on_gpu.bytes, 1.0, 1.0, fits, is_auto=fits))
    rows_text = "1 row" if counts.num_rows == 1 else f"{counts.num_rows:,} rows"
    title = (
        f"Values and gradients of {rows_text} of {count_text(fused.num_qubits, 'qubit')} in {counts.dtype}, "
        f"within {format_bytes(limit)}"
    )
    return Report(title, tuple(costs))

# SPDX-License-Identifier: Apache-2.0
"""The data that all chunks of an evaluation on a CUDA device share, and the numbers that are bound for one chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.engines.checkpointing import BACK, FORWARD, Schedule
from qiskit_fused.engines.cuda.device_data import (
    ChosenColumns,
    DeviceObservables,
    DeviceOutcomes,
    DevicePlan,
    DeviceSlots,
)
from qiskit_fused.engines.cuda.launch import kernel
from qiskit_fused.engines.cuda.throttle import Pace
from qiskit_fused.engines.cuda.work_items import WorkItems
from qiskit_fused.engines.request import Request
from qiskit_fused.engines.split_columns import SplitColumns


@dataclass(frozen=True)
class Setting:
    """The data that all chunks of an evaluation share.

    Attributes:
        runtime: the device.
        plan, slots, observables: the plan, its bound numbers and the observables on the device.
        num_qubits: number of qubits of the plan.
        num_runs: number of runs of the plan.
        request: the request of all chunks.
        columns: the columns of all rows; the plan's slots say which are stored for each row.
        items: the work items of all chunks.
        schedule: the schedule of kept states, or None if a single state is uncomputed.
        pace: counts the sweeps.
        chosen_columns: the columns that have one gradient for each unit, and the columns that are summed over rows.
    """

    runtime: Any
    plan: DevicePlan
    slots: DeviceSlots
    observables: DeviceObservables | DeviceOutcomes
    num_qubits: int
    num_runs: int
    request: Request
    columns: SplitColumns
    items: WorkItems
    schedule: Schedule | None
    pace: Pace
    chosen_columns: ChosenColumns

    def actions(self) -> list[list[int]]:
        """Return the actions in the form of `Schedule.actions`. Without a schedule, all of them use state 0."""
        if self.schedule is not None:
            return self.schedule.actions.tolist()
        positions = range(1, len(self.plan.passes.passes) + 1)
        forward = [[FORWARD, position, 0 if position > 1 else -1, 0] for position in positions]
        return forward + [
            [BACK, position, 0, -1] for position in reversed(positions) if self.request.gradient is not None
        ]

    def launch(
        self,
        file: str,
        name: str,
        grid: int,
        block: int,
        args: tuple[Any, ...],
        shared_memory: int = 0,
        stages: str = "",
    ) -> None:
        """Launch a kernel.

        Args:
            file: the file of the kernel in kernels/cuda.
            name: name of the kernel.
            grid: number of blocks.
            block: number of threads of a block.
            args: arguments of the kernel.
            shared_memory: bytes of dynamic shared memory of a block.
            stages: the code of the stages of a sweep, see `kernel`.
        """
        launch = self.plan.kernels.get((name, stages))
        if launch is None:
            # Sweeps are compiled for the qubits of a tile; bindings too, because their tables have the shape of a tile.
            tile_qubits = self.plan.passes.tile_qubits if file in ("sweeps.cu", "bind.cu") else None
            launch = kernel(self.runtime, file, name, self.request.dtype, tile_qubits, stages)
            self.plan.kernels[name, stages] = launch
        launch(grid, block, args, shared_memory)

    def sum_chunks(self, partial: Any, sums: Any) -> None:
        """Add up each row of partial sums, float64 (sums, partial sums)."""
        count, num_chunks = partial.shape
        args = (partial, np.int32(count), np.int32(num_chunks), sums)
        block = 32 if num_chunks <= 32 else 128
        self.launch("gradients.cu", "sum_chunks", min(count, 1 << 16), block, args)


class Bound(NamedTuple):
    """The numbers that the kernels of `bind.cu` compute from the columns of a chunk.

    Attributes:
        run_angles: float64 (runs, 2), two angles of each run.
        rotations: real (runs, 4), the coefficients with which a sweep rotates.
        tables: complex (entries,), the tables of the pieces of phases.
    """

    run_angles: Any
    rotations: Any
    tables: Any

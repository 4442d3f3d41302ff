# SPDX-License-Identifier: Apache-2.0
"""Data on the device: the records of plans, cut into passes, and of observables or of the outcomes of a measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from qiskit_fused.common.caches import BoundedCache, array_bytes
from qiskit_fused.engines.cuda import records
from qiskit_fused.engines.cuda.compiled_stages import CompiledPasses
from qiskit_fused.engines.cuda.formats import REAL_FORMAT, REGISTER_QUBITS
from qiskit_fused.engines.cuda.outcome_lists import make_lists
from qiskit_fused.engines.cuda.passes import Passes, make_passes
from qiskit_fused.engines.cuda.row_factors import phase_of_terms
from qiskit_fused.engines.cuda.stream_order import StreamOrder
from qiskit_fused.engines.cuda.value_layout import Slots, leaf_records, place_slots
from qiskit_fused.engines.request import Pairs
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import TermMasks
from qiskit_fused.program.program import OpKind

_MAX_SLOT_BYTES = 64 << 20  # bytes of device memory for the slots of one plan, for several sets of varying columns
_MAX_CHOSEN_BYTES = 1 << 20  # bytes of device memory for the lists of columns of one plan
_MAX_PLACES_BYTES = 1 << 20  # bytes of device memory for the places of pairs of one plan
_MAX_DIAGONAL_BYTES = 1 << 26  # bytes of the stored diagonals of one request; larger diagonals are computed when read


def upload(runtime: Any, array: np.ndarray) -> Any:
    """Copy an array to the device. Records become bytes, for CuPy has no records; an empty array becomes one zero."""
    array = np.ascontiguousarray(array if array.size else np.zeros(1, dtype=array.dtype))
    return runtime.to_device(array.view(np.uint8) if array.dtype.names else array)


def upload_slices(runtime: Any, array: np.ndarray, slices: list[slice]) -> list[Any]:
    """Copy an array of records to the device by one copy, and return its slices there."""
    whole, size = upload(runtime, array), array.dtype.itemsize
    return [whole[part.start * size : part.stop * size] for part in slices]


def upload_together(runtime: Any, arrays: list[np.ndarray]) -> list[Any]:
    """Copy arrays to the device by one copy, and return views of it: a copy takes the host longer than its bytes.

    Arrays with larger elements come first, so that each array has the alignment of its elements.
    """
    begins = np.cumsum([0, *(array.nbytes for array in arrays)]).tolist()
    whole = np.empty(max(begins[-1], 1), dtype=np.uint8)
    for begin, array in zip(begins, arrays):
        whole[begin : begin + array.nbytes].view(array.dtype)[:] = array
    device = runtime.to_device(whole)
    return [device[begin : begin + array.nbytes].view(array.dtype) for begin, array in zip(begins, arrays)]


class DevicePlan:
    """The data of a plan on the device. It holds no reference to the plan, so that it can live as long as the plan.

    Attributes:
        passes: the passes of the plan.
        masks, directs, outputs: records on the device.
        num_leaf_outputs: number of gradients of all leaves.
        combination: column_begin, index and weight of `combine` in kernels/cuda/gradients.cu, on the device.
        initial_state: the state that all rows start in, on the device; None for |0...0>.
        phase_of_terms: the global phase of terms that the kernels leave out.
        kernels: the functions that launch the kernels of the plan, by name and code of stages; `Setting.launch` adds
            them.
        compiled: the passes that run straight-line code.
    """

    def __init__(
        self, order: StreamOrder, plan: FusedProgram, tile_qubits: int, dtype: str, least_work: float | None = None
    ):
        is_real = dtype in REAL_FORMAT.values()
        self.passes = make_passes(plan, tile_qubits, REGISTER_QUBITS[dtype], is_real)
        self.compiled = CompiledPasses(self.passes, least_work)
        self.phase_of_terms = phase_of_terms(plan)
        self.kernels: dict[tuple[str, str], Callable[..., None]] = {}
        self._order = order
        self._slots: BoundedCache[DeviceSlots] = BoundedCache(_MAX_SLOT_BYTES)
        self._chosen: BoundedCache[ChosenColumns] = BoundedCache(_MAX_CHOSEN_BYTES)
        self._places: BoundedCache[tuple[Pairs, list[Any]]] = BoundedCache(_MAX_PLACES_BYTES)
        with order.kept_arrays():
            self._upload(order.runtime, plan, dtype)

    def _upload(self, runtime: Any, plan: FusedProgram, dtype: str) -> None:
        passes = self.passes
        self.masks, self.directs = upload(runtime, passes.masks), upload(runtime, passes.directs)
        self.outputs = upload_slices(runtime, passes.outputs, [sweep.outputs for sweep in passes.passes])
        leaves, self.num_leaf_outputs = leaf_records(plan)
        self.combination = [upload(runtime, part) for part in combination(plan, passes, leaves, self.num_leaf_outputs)]
        self.initial_state = None
        if plan.initial_state is not None:
            is_real = dtype in REAL_FORMAT.values()
            initial_state = plan.initial_state.real if is_real else plan.initial_state
            self.initial_state = upload(runtime, initial_state.astype(dtype))

    def slots(self, plan: FusedProgram, varies: np.ndarray) -> DeviceSlots:
        """Return the slots for the columns that vary, bool (C,); made once for each set of columns."""
        key = varies.tobytes()
        slots = self._slots.get(key)
        if slots is None:
            host = place_slots(plan, self.passes, varies)
            with self._order.kept_arrays():
                on_device = DeviceSlots(self._order.runtime, self.passes, host)
            slots = self._slots.put(key, on_device, array_bytes(host), self)
        return slots

    def chosen_columns(self, is_summed: np.ndarray) -> ChosenColumns:
        """Return the columns with a gradient of their own, and the summed ones, bool (C,); made once for each set."""
        key = is_summed.tobytes()
        chosen = self._chosen.get(key)
        if chosen is None:
            separate, summed = (np.flatnonzero(columns).astype(np.int32) for columns in (~is_summed, is_summed))
            with self._order.kept_arrays():
                on_device = upload(self._order.runtime, separate), upload(self._order.runtime, summed)
            chosen = ChosenColumns(*on_device, len(separate), len(summed))
            self._chosen.put(key, chosen, 4 * len(is_summed), self)
        return chosen

    def kept_places(self, pairs: Pairs, per_row: bool, make: Callable[[], list[np.ndarray]]) -> list[Any] | None:
        """Return arrays for all of some read-only pairs on the device, which ``make`` makes on the host.

        They are made once for the same pairs, with gradients per row or per pair. Return None if they are too large to
        be kept.
        """
        key = id(pairs.row), id(pairs.observable), per_row
        kept = self._places.get(key)
        if kept is None:
            arrays = make()
            num_bytes = sum(array.nbytes for array in arrays)
            if num_bytes > _MAX_PLACES_BYTES // 4:
                return None
            with self._order.kept_arrays():
                on_device = upload_together(self._order.runtime, arrays)
            kept = self._places.put(key, (pairs, on_device), num_bytes, self)  # the pairs keep their identities
        return kept[1]


class ChosenColumns(NamedTuple):
    """Columns on the device: some have one gradient for each unit, others have gradients that are summed over rows.

    Attributes:
        separate, summed: int32, columns in ascending order.
        num_separate, num_summed: numbers of columns.
    """

    separate: Any
    summed: Any
    num_separate: int
    num_summed: int


class DeviceSlots:
    """Slots on the device: ``host`` has the slots, other attributes their arrays; stages has one for each pass.

    Only the host needs ``column_varies``.
    """

    record: Any
    leaves: Any
    runs: Any
    terms: Any
    items: Any
    extras: Any
    pieces: Any
    run_order: Any
    term_order: Any
    piece_order: Any

    def __init__(self, runtime: Any, passes: Passes, slots: Slots):
        self.host = slots
        for field in fields(slots):
            value = getattr(slots, field.name)
            if isinstance(value, np.ndarray) and field.name not in ("stages", "column_varies"):
                setattr(self, field.name, upload(runtime, value))
        self.stages = upload_slices(runtime, slots.stages, [sweep.stages for sweep in passes.passes])


def combination(
    plan: FusedProgram, passes: Passes, leaves: np.ndarray, num_leaf_outputs: int
) -> tuple[np.ndarray, ...]:
    """Return the leaf gradients and totals, with weights, whose sum is the gradient of each column.

    Returns:
        column_begin int32 (C + 1,), index int32 and weight float64. The gradient of column c is a sum over the entries
        column_begin[c]:column_begin[c + 1], of weight times the leaf gradient ``index`` if index < num_leaf_outputs,
        otherwise times the total ``index - num_leaf_outputs``.
    """
    vector = leaves["kind"] == OpKind.RV
    used = leaves["output"] >= 0
    parts = []
    for k in range(3):
        chosen = leaves[used & vector] if k else leaves[used]
        weight = np.where(chosen["kind"] == OpKind.RV, 1.0, chosen["coefficient"])
        parts.append((chosen["column"] + k, chosen["output"] + k, weight))
    term, total, weight = passes.term_sums
    parts.append((plan.term_column[term], num_leaf_outputs + total, plan.term_coefficient[term] * weight))
    column, index, weights = (np.concatenate(part) for part in zip(*parts))
    order = np.argsort(column, kind="stable")
    begin = np.searchsorted(column[order], np.arange(plan.program.num_columns + 1))
    return begin.astype(np.int32), index[order].astype(np.int32), weights[order].astype(np.float64)


@dataclass(frozen=True)
class DeviceObservables:
    """Observables on the device. The terms of an observable that flip the same bits are a group, applied as a diagonal.

    Attributes:
        observable_begin: int32 (K + 1,), groups of observable k are observable_begin[k]:observable_begin[k + 1].
        groups, terms: records.
        num_groups: number of groups.
        num_bytes: bytes of the stored diagonals.
        diagonals: complex (num_groups, 2^N), memory for the diagonal of each group; None if diagonals are not stored.
    """

    observable_begin: Any
    groups: Any
    terms: Any
    num_groups: int
    num_bytes: int
    diagonals: Any


def device_observables(
    runtime: Any, masks: TermMasks, num_address_bits: int, dtype: str, room: int
) -> DeviceObservables:
    """Group the terms of each observable by the bits that they flip, and copy them to the device.

    Args:
        runtime: the device.
        masks: the terms on the plan's bits, sorted by observable and flipped bits.
        num_address_bits: N.
        dtype: format of the amplitudes.
        room: bytes that are free for diagonals.
    """
    starts = np.ones(len(masks), dtype=bool)
    if len(masks):
        starts[1:] = (masks.observable[1:] != masks.observable[:-1]) | (masks.x[1:] != masks.x[:-1])
    first = np.flatnonzero(starts)
    groups = np.zeros(len(first), dtype=records.GROUP)
    groups["flip"], groups["first_term"], groups["end_term"] = masks.x[first], first, np.append(first, len(masks))[1:]
    terms = np.zeros(len(masks), dtype=records.OBSERVABLE_TERM)
    for name, values in (("care", masks.care), ("value", masks.value), ("sign", masks.z)):
        terms[name] = values
    terms["re"], terms["im"] = masks.real, masks.imag
    begin = np.searchsorted(masks.observable[first], np.arange(masks.num_observables + 1)).astype(np.int32)
    num_bytes = len(first) * np.dtype(dtype).itemsize << num_address_bits
    stored = num_bytes <= min(_MAX_DIAGONAL_BYTES, room)
    return DeviceObservables(
        observable_begin=upload(runtime, begin),
        groups=upload(runtime, groups),
        terms=upload(runtime, terms),
        num_groups=len(first),
        num_bytes=num_bytes if stored else 0,
        diagonals=runtime.xp.empty((max(len(first), 1), 1 << num_address_bits), dtype=dtype) if stored else None,
    )


@dataclass(frozen=True)
class DeviceOutcomes:
    """The projectors onto the outcomes of a measurement on the device, in the place of `DeviceObservables`.

    Attributes:
        outcome: int32 (2^N,), the outcome of each amplitude, or -1 for none.
        order, lists, parts, log_lanes: the lists of the outcomes (see `OutcomeLists`).
        num_outcomes: K.
        num_parts: number of parts of long lists.
        num_bytes: bytes of all arrays.
    """

    outcome: Any
    order: Any
    lists: Any
    parts: Any
    log_lanes: int
    num_outcomes: int
    num_parts: int
    num_bytes: int


def device_outcomes(runtime: Any, outcome: np.ndarray, num_outcomes: int, num_address_bits: int) -> DeviceOutcomes:
    """Sort the amplitudes by their outcomes, and copy the lists to the device.

    Args:
        runtime: the device.
        outcome: int32 (2^n,), the outcome of each amplitude, or -1 for none.
        num_outcomes: K.
        num_address_bits: N. Amplitudes at the addresses 2^n and above are always 0 and have no outcome.
    """
    host = make_lists(outcome, num_outcomes)
    padded = np.pad(outcome, (0, (1 << num_address_bits) - len(outcome)), constant_values=-1)
    outcome, order, lists, parts = arrays = [upload(runtime, array) for array in (padded, *host[:3])]
    return DeviceOutcomes(
        outcome=outcome,
        order=order,
        lists=lists,
        parts=parts,
        log_lanes=host.log_lanes,
        num_outcomes=num_outcomes,
        num_parts=len(host.parts),
        num_bytes=sum(int(array.nbytes) for array in arrays),
    )

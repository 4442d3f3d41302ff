# SPDX-License-Identifier: Apache-2.0
# All arrays are C-contiguous. nanobind converts input arrays to these dtypes, but it never converts output arrays.
from collections.abc import Callable
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

class Plan: ...
class Observables: ...

class Instructions:
    def __init__(self, functions: list[int], data: Any) -> None: ...
    def match(self, data: Any) -> bool: ...
    def not_whole(self) -> list[int]: ...

def make_plan(
    *,
    num_qubits: int,
    num_columns: int,
    num_layers: int,
    chunk_bits: int,
    is_real: bool,
    leaf_kind: NDArray[np.uint8],
    leaf_column: NDArray[np.int32],
    leaf_coefficient: NDArray[np.float64],
    leaf_offset: NDArray[np.float64],
    leaf_quaternion: NDArray[np.float64],
    run_begin: NDArray[np.int32],
    run_qubit: NDArray[np.int32],
    run_layer: NDArray[np.int32],
    term_phase: NDArray[np.int32],
    term_column: NDArray[np.int32],
    term_coefficient: NDArray[np.float64],
    term_offset: NDArray[np.float64],
    term_care: NDArray[np.uint64],
    term_value: NDArray[np.uint64],
    term_sign: NDArray[np.uint64],
    dense_layer: NDArray[np.int32],
    dense_targets: NDArray[np.uint64],
    dense_care: NDArray[np.uint64],
    dense_value: NDArray[np.uint64],
    dense_entries: NDArray[np.complex128],
    map_layer: NDArray[np.int32],
    map_number: NDArray[np.int32],
    map_columns: NDArray[np.uint64],
    initial: NDArray[np.complex128] | None,
) -> Plan: ...
def make_observables(
    num_qubits: int,
    num_observables: int,
    observable: NDArray[np.int32],
    x: NDArray[np.uint64],
    z: NDArray[np.uint64],
    care: NDArray[np.uint64],
    value: NDArray[np.uint64],
    real: NDArray[np.float64],
    imag: NDArray[np.float64],
) -> Observables: ...
def make_outcomes(num_qubits: int, num_outcomes: int, outcome: NDArray[np.int32]) -> Observables: ...
def evaluate(
    plan: Plan,
    observables: Observables,
    columns: NDArray[np.float64],
    row_pairs: NDArray[np.int64],
    pair_observable: NDArray[np.int32],
    cotangents: NDArray[np.float64] | None,
    sum_columns: NDArray[np.bool] | None,
    values: NDArray[np.float64],
    gradients: NDArray[np.float64] | None,
    imaginary: bool,
    single_precision: bool,
    num_threads: int,
    schedule: NDArray[np.int32] | None,
    num_states: int,
    kept_bytes: int,
    initial_states: NDArray[np.complex128] | None,
    final_cotangents: NDArray[np.complex128] | None,
    final_states: NDArray[np.complex64] | NDArray[np.complex128] | None,
    state_gradients: NDArray[np.complex128] | None,
    watch: Callable[[int, int], bool] | None,
    from_end: bool = False,
) -> tuple[int, int, int, float, float, bool]: ...
def predict(
    plan: Plan,
    single_precision: bool,
    *,
    num_rows: int,
    values_per_row: int,
    num_outcomes: int,
    gradient: bool,
    imaginary: bool,
    starts_given: bool,
    saves_psi: bool,
    num_states: int,
    num_threads: int,
    varying_tables: tuple[int, int, int],
    num_flips: int,
    num_diagonals: int,
) -> int: ...
def varying_tables(plan: Plan, single_precision: bool, columns: NDArray[np.bool] | None) -> tuple[int, int, int]: ...
def most_shared_bytes(plan: Plan, single_precision: bool, num_terms: int) -> int: ...
def state_bytes(plan: Plan, single_precision: bool, imaginary: bool) -> int: ...
def windows(plan: Plan, single_precision: bool) -> list[int]: ...
def side_by_side(plan: Plan, single_precision: bool, num_rows: int, num_threads: int) -> tuple[int, int]: ...
def draw_shots(
    probabilities: NDArray[np.float64],
    sources: NDArray[np.int64],
    streams: NDArray[np.uint64],
    key: NDArray[np.uint64],
    first_shot: int,
    tables: NDArray[np.uint64],
    chunk_bits: int,
    shots: NDArray[np.uint8],
    num_threads: int,
) -> None: ...
def release_memory(most_bytes: int) -> None: ...
def kept_bytes() -> int: ...
def constants() -> dict[str, Any]: ...
def isa() -> str: ...
def phase_factors(
    columns: NDArray[np.float64],
    column: NDArray[np.int64],
    coefficient: NDArray[np.float64],
    offset: NDArray[np.float64],
    constant: float,
    factors: NDArray[np.complex128],
) -> None: ...
def all_finite(numbers: NDArray[np.float64]) -> bool: ...
@overload
def half_angles(angles: NDArray[np.float64], cosines_and_sines: NDArray[np.float64]) -> None: ...
@overload
def half_angles(angles: NDArray[np.float64], cosines_and_sines: NDArray[np.float32]) -> None: ...
def fma_peak(single_precision: bool, num_threads: int) -> float: ...

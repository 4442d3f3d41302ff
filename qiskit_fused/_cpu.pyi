# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from typing import Any

import numpy as np

class Plan: ...
class Observables: ...

def make_plan(**arrays: Any) -> Plan: ...
def make_observables(
    num_qubits: int,
    num_observables: int,
    observable: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
    care: np.ndarray,
    value: np.ndarray,
    real: np.ndarray,
    imag: np.ndarray,
) -> Observables: ...
def evaluate(
    plan: Plan,
    observables: Observables,
    columns: np.ndarray,
    row_pairs: np.ndarray,
    pair_observable: np.ndarray,
    cotangents: np.ndarray | None,
    values: np.ndarray,
    gradients: np.ndarray | None,
    imaginary: bool,
    single_precision: bool,
    num_threads: int,
    schedule: np.ndarray | None,
    num_states: int,
    initial_states: np.ndarray | None,
    final_cotangents: np.ndarray | None,
    final_states: np.ndarray | None,
    state_gradients: np.ndarray | None,
    meanwhile: Callable[[], Any] | None,
    watch: Callable[[int, int], bool] | None,
) -> tuple[int, int, int, float, float, Any]: ...
def isa() -> str: ...
def fma_peak(single_precision: bool, num_threads: int) -> float: ...

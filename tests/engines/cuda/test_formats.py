# SPDX-License-Identifier: Apache-2.0
"""Predictions, pictures and the engine take the same tiles for each number format."""

import pytest
from layered_circuits import hardware_efficient

from qiskit_fused import fuse
from qiskit_fused.engines.cuda.formats import (
    MAX_TILE_QUBITS,
    REAL_FORMAT,
    USUAL_TILE_QUBITS,
    amplitude_format,
    choose_tile_qubits,
    shared_memory,
    states_at_once,
)
from qiskit_fused.engines.cuda.memory import predict
from qiskit_fused.inspection.drawing.layout import make_layout

FORMATS = sorted(USUAL_TILE_QUBITS)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_state_of_one_qubit_more_is_one_tile_and_larger_states_are_several(dtype):
    most = MAX_TILE_QUBITS[dtype]
    assert choose_tile_qubits(most, dtype) == most
    assert [choose_tile_qubits(n, dtype) for n in (4, most + 1, 30)] == [USUAL_TILE_QUBITS[dtype]] * 3


@pytest.mark.parametrize("num_states", [1, 2])
@pytest.mark.parametrize("dtype", FORMATS)
def test_a_tile_fits_the_shared_memory_of_a_block(dtype, num_states):
    for limit in (48 << 10, 64 << 10, 99 << 10):
        t = choose_tile_qubits(20, dtype, limit, num_states)
        assert shared_memory(t, dtype, num_states) <= limit
        assert t == USUAL_TILE_QUBITS[dtype] or shared_memory(t + 1, dtype, num_states) > limit


@pytest.mark.parametrize("dtype", FORMATS)
def test_states_are_exchanged_together_where_two_blocks_have_the_memory(dtype):
    assert [states_at_once(dtype, size << 10) for size in (64, 100, 164, 228)][2:] == [2, 2]
    for size in (64 << 10, 100 << 10, 164 << 10):
        two_blocks = 2 * (shared_memory(USUAL_TILE_QUBITS[dtype], dtype, 2) + 1024)
        assert states_at_once(dtype, size) == 1 + (two_blocks <= size)
    assert states_at_once("complex64", 100 << 10) == 1


def test_real_states_have_real_formats():
    for dtype, of_real in REAL_FORMAT.items():
        assert (amplitude_format(dtype, True), amplitude_format(dtype, False)) == (of_real, dtype)


@pytest.mark.parametrize("dtype", REAL_FORMAT)
@pytest.mark.parametrize("further", [0, 1])
def test_a_picture_shows_as_many_sweeps_as_are_predicted(dtype, further):
    fused = fuse(hardware_efficient(MAX_TILE_QUBITS[dtype] + further, 4)).fused_program
    layout = make_layout(fused, device="cuda", dtype=dtype, max_layers=100)
    num_sweeps = len(list(layout.sweeps()))
    assert num_sweeps == predict(fused, dtype=dtype).num_positions
    assert (num_sweeps == 1) == (further == 0)

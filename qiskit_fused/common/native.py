# SPDX-License-Identifier: Apache-2.0
"""The compiled extension, and the constants that its kernels share with Python."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

try:
    from qiskit_fused import _cpu
except ImportError as error:
    raise ImportError(
        f"qiskit_fused was imported from {Path(__file__).parents[2]}, where its C++ engine is not compiled; leave the "
        "folder of the sources to use what is installed, or install with pip install -e ."
    ) from error

__all__ = ["CONSTANTS", "Constants"]


class Constants(NamedTuple):
    """Constants of ``kernels/shared``, which says in full what each one is for; the fields have their names.

    Attributes:
        max_low_bits: 2^max_low_bits neighbouring amplitudes share a factor of the phase tables of the CPU engine.
        widest_vector_bytes: of a vector of AVX-512.
        widest_block_qubits: strided qubits that AVX-512 rotates in one pass.
        smallest_sine: sines and cosines of half angles below this are 0.
        most_kept_bytes: bytes that the CPU engine keeps between calls at most.
        max_register_qubits, max_window_qubits, max_outside_qubits: room in the records of the CUDA engine.
        observed_amplitudes: amplitudes that a block of `observe` sums.
        output_lanes: outputs that `sum_tiles` sums side by side.
        min_sweep_threads: threads of a block of a sweep at least.
        warp_qubits: log2 of the threads of a warp.
        warp_entries: sums that a warp leaves at a stage, but for one for each thread bit inside the warp.
        leaf_rx, leaf_ry, leaf_rz, leaf_su2, leaf_rv: kinds of gates.
        source_term, source_run_in, source_run_out: where the angle of a diagonal comes from.
        extra_thread, extra_register, extra_term: what an extra is a factor of.
    """

    max_low_bits: int
    widest_vector_bytes: int
    widest_block_qubits: int
    smallest_sine: float
    most_kept_bytes: int
    max_register_qubits: int
    max_window_qubits: int
    max_outside_qubits: int
    observed_amplitudes: int
    output_lanes: int
    min_sweep_threads: int
    warp_qubits: int
    warp_entries: int
    leaf_rx: int
    leaf_ry: int
    leaf_rz: int
    leaf_su2: int
    leaf_rv: int
    source_term: int
    source_run_in: int
    source_run_out: int
    extra_thread: int
    extra_register: int
    extra_term: int


try:
    CONSTANTS = Constants(**_cpu.constants())
except (AttributeError, TypeError) as error:
    raise ImportError(
        f"the C++ engine in {Path(__file__).parents[1]} was compiled from other sources than the package beside it; "
        "install qiskit-fused again, which compiles it."
    ) from error

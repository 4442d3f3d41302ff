# SPDX-License-Identifier: Apache-2.0
"""Import the compiled extension, and read the constants that its kernels share with Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

try:
    from qiskit_fused import _cpu
except ImportError as error:
    raise ImportError(
        f"{Path(__file__).parents[2]} holds the sources of qiskit_fused, which are not compiled; leave this folder, or "
        "install the package with pip install -e ."
    ) from error

__all__ = ["CONSTANTS", "Constants"]


class Constants(NamedTuple):
    """The constants of the headers in ``kernels/shared``, by their names in lower case. The headers give the reasons.

    Attributes:
        max_low_bits: the CPU engine shares one factor of its phase tables among 2^max_low_bits neighbouring amplitudes.
        widest_vector_bytes: bytes of an AVX-512 vector.
        widest_block_qubits: number of strided qubits that AVX-512 code rotates in one pass.
        max_dense_qubits: most qubits of the matrix of a dense gate.
        smallest_sine: smaller sines and cosines of half angles count as 0.
        most_kept_bytes: bound of the workspaces, tables and states, in bytes, that the CPU engine keeps between calls.
        max_register_qubits: most register bits of a piece or a stage in the records of the CUDA engine.
        observed_amplitudes: number of amplitudes that one thread block of `observe` sums.
        output_lanes: number of outputs that neighbouring threads of `sum_tiles` sum at the same time.
        min_sweep_threads: smallest number of threads in a thread block of a sweep.
        warp_qubits: log2 of the number of threads in a warp.
        warp_entries: number of sums of a warp at one stage, without the sums for thread bits inside the warp.
        leaf_rx, leaf_ry, leaf_rz, leaf_su2, leaf_rv: the kinds of gates, equal to `OpKind`.
        source_term, source_run_in, source_run_out: the kinds of sources of a diagonal's angle: a term, or the first or
            the last Rz of a run.
        extra_thread, extra_register, extra_term: the kinds of extra factors: for some threads, for |1> of a register
            bit, or for all amplitudes.
    """

    max_low_bits: int
    widest_vector_bytes: int
    widest_block_qubits: int
    max_dense_qubits: int
    smallest_sine: float
    most_kept_bytes: int
    max_register_qubits: int
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


_NAMES = (
    "Instructions",
    "Observables",
    "Plan",
    "all_finite",
    "constants",
    "draw_shots",
    "evaluate",
    "fma_peak",
    "half_angles",
    "isa",
    "kept_bytes",
    "make_observables",
    "make_outcomes",
    "make_plan",
    "most_shared_bytes",
    "phase_factors",
    "predict",
    "release_memory",
    "side_by_side",
    "state_bytes",
    "varying_tables",
    "windows",
)


def read_constants(extension: Any) -> Constants:
    """Return the constants of an extension.

    Raises:
        ImportError: for an extension that lacks a name or a constant, or has another constant.
    """
    missing = [name for name in _NAMES if not hasattr(extension, name)]
    try:
        if not missing:
            return Constants(**extension.constants())
    except TypeError as error:
        reason = str(error)
    else:
        reason = f"it has no {', '.join(missing)}"
    raise ImportError(
        f"the C++ engine in {Path(__file__).parents[1]} was compiled from other sources than the package beside it "
        f"({reason}); rebuild the extension: install qiskit-fused again, which compiles it."
    )


CONSTANTS = read_constants(_cpu)

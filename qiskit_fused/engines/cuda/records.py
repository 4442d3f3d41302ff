# SPDX-License-Identifier: Apache-2.0
"""The records of ``kernels/cuda/records.cuh``, field by field, as NumPy structures."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from qiskit_fused.common.native import CONSTANTS

MAX_REGISTER_QUBITS = CONSTANTS.max_register_qubits


class Source(IntEnum):
    """Source of the angle of a diagonal: a term, or one of the two Rz of a run ``Rz(phi) Ry Rz(lambda)``."""

    TERM = CONSTANTS.source_term
    RUN_IN = CONSTANTS.source_run_in  # lambda
    RUN_OUT = CONSTANTS.source_run_out  # phi


class ExtraKind(IntEnum):
    """Effect of an extra on the amplitudes that its masks match; see ``kernels/shared/tuning.h``."""

    THREAD = CONSTANTS.extra_thread
    REGISTER = CONSTANTS.extra_register
    TERM = CONSTANTS.extra_term


def _record(**fields: str | tuple[str, int]) -> np.dtype:
    described = [(name, *((kind,) if isinstance(kind, str) else kind)) for name, kind in fields.items()]
    return np.dtype(described, align=True)


LEAF = _record(coefficient="f8", offset="f8", quaternion=("f8", 4), kind="i4", column="i4", output="i4", unused="i4")
RUN = _record(
    first_leaf="i4", end_leaf="i4", slot="i4", only_rx="i4", sum_x="i4", sum_y="i4", sum_z="i4",
    sum_z_after="i4",
)  # fmt: skip
TERM = _record(coefficient="f8", offset="f8", column="i4", slot="i4")
ITEM = _record(coefficient="f8", care="u4", value="u4", sign="u4", source="i4", slot="i4", unused="i4")
EXTRA = _record(
    care="u8", value="u8", sign="u8", coefficient="f8", source="i4", slot="i4", kind="i4", bit="i4"
)  # fmt: skip
DIRECT = _record(care="u8", value="u8", sign="u8")
PIECE = _record(
    table="i8", signs=("u8", MAX_REGISTER_QUBITS), arrangement="i4", register_signs="u4",
    first_thread_item="i4", first_register_item="i4", end_item="i4", first_extra="i4",
    end_extra="i4", z_partial="i4", walsh_partial="i4", first_walsh="i4", end_walsh="i4", direct_partial="i4",
    first_direct="i4", end_direct="i4",
)  # fmt: skip
STAGE = _record(
    arrangement="i4", piece="i4", rotate="i4", sum_x="i4", y_partial="i4", x_partial="i4",
    slot=("i4", MAX_REGISTER_QUBITS),
)  # fmt: skip
OUTPUT = _record(outside="u8", partial="i4", total="i4")
SLOTS = _record(
    shared_runs="i8", varying_runs="i8", shared_terms="i8", varying_terms="i8", shared_entries="i8",
    varying_entries="i8", shared_columns="i8", varying_columns="i8",
)  # fmt: skip
GROUP = _record(flip="u8", first_term="i4", end_term="i4")
OBSERVABLE_TERM = _record(care="u8", value="u8", sign="u8", re="f8", im="f8")
OUTCOME_LIST = _record(begin="u4", end="u4", has_parts="i4")
LIST_PART = _record(begin="u4", end="u4")

# SPDX-License-Identifier: Apache-2.0
"""The results of a sampler's PUBs: Qiskit's containers, which also give the counts of single rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from qiskit.primitives import BitArray, DataBin, SamplerPubResult

from qiskit_fused.primitives.exact_probabilities import ExactProbabilities

_READ_ALONE = "meas"  # the register of `QuantumCircuit.measure_all`; SamplerQNN reads no other register beside it


class SampledData(DataBin):
    """The data of a PUB: a ``DataBin`` with one field for each classical register, and with counts of single rows.

    ``SamplerQNN`` of qiskit-machine-learning calls ``get_counts(row)``. Without this method, it would give each row
    the counts of all rows together, unless the register is called ``meas``.
    """

    def get_counts(self, loc: int | tuple[int, ...] | None = None) -> dict[str, Any]:
        """Return the counts of a row by bitstring, or its probabilities if there are no shots.

        The bits are the bits of the register ``meas``, or else of all registers together, as `join_data` joins them.

        Args:
            loc: the index of the row. The only row of a PUB without a shape has the index None, or 0.
        """
        fields = [self[_READ_ALONE]] if _READ_ALONE in self else list(self.values())
        index = () if loc is None or (loc == 0 and self.shape == ()) else loc  # SamplerQNN gives 0
        if not fields:
            return {}
        if isinstance(fields[0], ExactProbabilities):
            return ExactProbabilities.join(fields).get_probabilities(index)
        joined = BitArray.concatenate_bits([field[index] for field in fields])
        rows, counts = np.unique(joined.array, axis=0, return_counts=True)
        labels = [format(int.from_bytes(row.tobytes(), "big"), f"0{joined.num_bits}b") for row in rows]
        return dict(zip(labels, counts.tolist()))


class ExactPubResult(SamplerPubResult):
    """The result of a PUB without shots. ``join_data`` joins exact probabilities."""

    def join_data(self, names: Iterable[str] | None = None) -> Any:
        """Return the joint probabilities of some registers.

        The bits of the first register are the least significant bits, as in qiskit-machine-learning. With shots, they
        are the most significant bits, as in Qiskit.

        Args:
            names: the names of the registers; None: all registers that something is measured into.

        Raises:
            ValueError: if there are no names, or for a name that is not the name of a register.
        """
        names = list(self.metadata["names"] if names is None else names)
        if not names:
            raise ValueError("names is empty; give the name of a classical register, or measure a qubit into one.")
        for name in names:
            if name not in self.data:
                raise ValueError(f"name does not exist: {name!r}; allowed: {', '.join(map(repr, self.data))}.")
        return ExactProbabilities.join([self.data[name] for name in names])

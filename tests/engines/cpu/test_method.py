# SPDX-License-Identifier: Apache-2.0
"""The CPU engine caches choices of methods by fused program, and drops them with the fused program."""

import gc
import weakref

from asking import request_of
from layered_circuits import hardware_efficient, total_z

from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.cpu.memory import Counts, Footprint
from qiskit_fused.engines.cpu.method import choose
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower


def choice_for(fused, request=None, limit=None, method="auto"):
    terms = coerce_observables(total_z(fused.num_qubits)).operators.restrict(fused.wires)
    asked, options = (
        request_of(request or Counts(), fused.program.num_columns),
        {"num_segments": None, "num_threads": 1},
    )
    return choose(fused, asked, terms, method=method, limit_of=lambda _: limit, **options)


def test_the_same_question_has_the_same_choice_for_small_and_for_large_programs():
    for num_qubits in (3, 10):
        fused = fuse_program(lower(hardware_efficient(num_qubits, 4)))
        assert choice_for(fused) is choice_for(fused)
        assert choice_for(fused) is not choice_for(fused, Counts(dtype="complex64"))


def test_nothing_that_the_engine_keeps_holds_a_fused_program():
    for num_qubits in (3, 10):
        fused = fuse_program(lower(hardware_efficient(num_qubits, 4)))
        for method in ("auto", "store", "checkpoint"):
            choice_for(fused, method=method)
            choice_for(fused, limit=10**9, method=method)
        assert Footprint(fused, "complex128").state_bytes(Counts()) >= 16 << num_qubits
        alive = weakref.ref(fused)
        del fused
        gc.collect()
        assert alive() is None

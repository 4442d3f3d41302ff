# SPDX-License-Identifier: Apache-2.0
"""Fused programs are data: frozen, equal only to themselves, and pickled without their cached properties."""

import pickle
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from layered_circuits import hardware_efficient
from qiskit.circuit.library import real_amplitudes

from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower


@pytest.fixture
def fused():
    return fuse_program(lower(hardware_efficient(4, 2)))


def test_a_fused_program_is_frozen(fused):
    with pytest.raises(FrozenInstanceError):
        fused.num_layers = 3


def test_fused_programs_are_equal_only_to_themselves(fused):
    assert fused == fused and fused != fuse_program(fused.program)
    assert len({fused, fuse_program(fused.program)}) == 2


def test_a_pickle_holds_the_fields_alone(fused):
    before = pickle.dumps(fused)
    assert not fused.is_real and fused.single_axis.shape == (fused.num_runs,)
    assert pickle.dumps(fused) == before
    copied = pickle.loads(before)
    assert vars(copied).keys() == {field.name for field in fields(FusedProgram)}
    np.testing.assert_array_equal(copied.run_qubit, fused.run_qubit)


def test_states_of_real_amplitudes_are_real_and_others_are_not(fused):
    real = fuse_program(lower(real_amplitudes(3)))
    assert real.is_real and real.stays_real()
    assert not fused.is_real and not fused.stays_real()
    assert not real.stays_real(imaginary=True) and not real.stays_real(final_states=True)


def test_the_bytes_of_a_fused_program_are_at_least_those_of_its_arrays(fused):
    arrays = [value for value in vars(fused).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) < fused.num_bytes

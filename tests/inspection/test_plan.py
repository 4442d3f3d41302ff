# SPDX-License-Identifier: Apache-2.0
"""Plans: there is one plan for each circuit and observables, and it shows the data of its fused program."""

import gc
import pickle
import re
from dataclasses import fields

import numpy as np
import pytest
from layered_circuits import hardware_efficient, rx_ry_layers, total_z
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import Plan, compile_circuit, fuse
from qiskit_fused.fusion.fused_program import FusedProgram


def test_fuse_returns_one_plan_per_circuit_and_support():
    circuit = hardware_efficient(3, 2)
    plan = fuse(circuit)
    assert fuse(circuit) is plan
    assert fuse(circuit, "IIZ") is fuse(circuit, SparsePauliOp("IIZ", [2.0]))
    with pytest.raises(ValueError, match=r"circuit \(3\) does not match the number of qubits of the observables \(2\)"):
        fuse(circuit, "ZZ")


def test_a_plan_goes_when_nobody_holds_it_and_its_fused_program_stays():
    circuit = compile_circuit(hardware_efficient(3, 2))
    fused = fuse(circuit).fused_program
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is Plan and one.fused_program is fused]
    assert fuse(circuit).fused_program is fused


def test_every_attribute_of_a_fused_program_is_one_of_its_plan():
    plan = fuse(hardware_efficient(4, 2), total_z(4))
    names = {field.name for field in fields(FusedProgram)} - {"phase", "extra_phase"}  # plans show no global phase
    names |= {"num_runs", "is_real", "takes_states", "starts_at_zero"}
    for name in names:
        actual, expected = getattr(plan, name), getattr(plan.fused_program, name)
        assert actual is expected or actual == expected, name


def test_plans_are_equal_only_to_themselves_and_survive_pickling():
    plan, other = fuse(hardware_efficient(4, 2), total_z(4)), fuse(hardware_efficient(4, 2), total_z(4))
    assert plan == plan and plan != other and len({plan, other}) == 2
    copied = pickle.loads(pickle.dumps(plan))
    assert str(copied) == str(plan) and copied.draw("text") == plan.draw("text")


def test_memory_grows_by_a_state_for_each_state_that_is_kept():
    plan = fuse(rx_ry_layers(16, 10), total_z(16))
    kept = [plan.memory(1, "checkpoint", "complex64", num_states=c) for c in (3, 5)]
    assert kept[1] - kept[0] == pytest.approx(2 * (2**16 * 8), rel=0.01)
    assert plan.memory(method="checkpoint", num_states=100) == plan.memory(method="store")
    assert plan.memory(method="checkpoint") == pytest.approx(plan.memory(method="reverse"), rel=0.01)
    assert plan.memory(gradient=False) < plan.memory() < plan.memory(observables=2) < plan.memory(8, num_threads=2)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("batch_size", -1, "batch_size is -1; allowed: an integer >= 0."),
        ("batch_size", 0.5, "batch_size is 0.5; allowed: an integer >= 0."),
        ("batch_size", True, "batch_size is True; allowed: an integer >= 0."),
        ("batch_size", "3", "batch_size is '3'; allowed: an integer >= 0."),
        ("num_threads", 0, "num_threads is 0; allowed: an integer >= 1."),
        ("num_threads", None, "num_threads is None; allowed: an integer >= 1."),
        ("observables", 0, "observables is 0; allowed: an integer >= 1."),
        ("num_states", 0, "num_states is 0; allowed: an integer >= 1."),
    ],
)
def test_counts_that_are_none_are_refused_by_name(name, value, error):
    plan = fuse(rx_ry_layers(4, 1))
    for ask in [plan.memory] if name == "num_states" else [plan.memory, plan.report]:
        with pytest.raises(ValueError, match=re.escape(error)):
            ask(**{name: value})
        ask(**{name: np.int64(3)})

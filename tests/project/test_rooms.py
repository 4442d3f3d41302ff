# SPDX-License-Identifier: Apache-2.0
"""The way of parameter values from a public call to the C++ kernel: few modules hand them on."""

import sys

import numpy as np
import pytest
from qiskit.circuit.library import efficient_su2

from qiskit_fused import FusedEstimator, FusedEstimatorGradient
from qiskit_fused.engines.cpu import engine

NUM_ROWS = 13


def holds_rows(value):
    """Say whether an object is an array or a tensor with the rows, or a tuple with such an object."""
    if isinstance(value, tuple):
        return any(map(holds_rows, value))
    return tuple(getattr(value, "shape", ()))[:1] == (NUM_ROWS,)


@pytest.fixture
def rooms(monkeypatch):
    """The modules that hold the rows while the kernel runs, in the order of the calls, for each call of the kernel."""
    found, evaluate = [], engine._cpu.evaluate

    def watched(*arguments):
        frame, modules = sys._getframe(1), []
        while frame is not None:
            name = frame.f_globals.get("__name__", "")
            if name.startswith("qiskit_fused.") and any(map(holds_rows, frame.f_locals.values())):
                modules.insert(0, name.removeprefix("qiskit_fused."))
            frame = frame.f_back
        found.append(list(dict.fromkeys(modules)))
        return evaluate(*arguments)

    monkeypatch.setattr(engine._cpu, "evaluate", watched)
    return found


def test_an_estimator_hands_rows_to_the_kernel_through_four_modules(rooms):
    circuit = efficient_su2(3, reps=1)
    in_execution = ["execution.evaluate", "execution.program_evaluation", "engines.cpu.engine"]
    FusedEstimator().run([(circuit, "ZZZ", np.zeros((NUM_ROWS, 12)))]).result()
    assert rooms == [["primitives.estimator", *in_execution]]


def test_a_gradient_hands_rows_to_the_kernel_through_four_modules(rooms):
    FusedEstimatorGradient().value_and_gradient(efficient_su2(3, reps=1), "ZZZ", np.zeros((NUM_ROWS, 12)))
    in_execution = ["execution.evaluate", "engines.cpu.engine"]
    assert rooms == [["primitives.estimator_gradient", "primitives.differentiation", *in_execution]]


def test_a_layer_hands_rows_to_the_kernel_through_five_modules(rooms):
    torch = pytest.importorskip("torch")
    from qiskit_fused.torch import FusedLayer

    circuit = efficient_su2(3, reps=1)
    layer = FusedLayer(circuit, "ZZZ", circuit.parameters[:2], circuit.parameters[2:])
    layer(torch.zeros(NUM_ROWS, 2)).sum().backward()
    in_execution = ["execution.row_functions", "execution.evaluate"]
    on_the_way_back = ["torch.functions", *in_execution, "engines.cpu.engine"]
    assert rooms == [["torch.base_layer", *on_the_way_back], on_the_way_back]

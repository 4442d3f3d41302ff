# SPDX-License-Identifier: Apache-2.0
"""Rooflines: measured ceilings of a machine, and runs below them."""

import numpy as np
import pytest
from layered_circuits import hardware_efficient

from qiskit_fused import fuse
from qiskit_fused.inspection.roofline import Ceilings, Run, draw_roofline, measure_ceilings

pytest.importorskip("matplotlib")

CEILINGS = Ceilings("complex64", 1, 1e11, 5e10, 1e10)


def test_a_run_lies_at_its_flops_and_bytes_below_the_roofs():
    plan = fuse(hardware_efficient(8, 3))
    run = Run("W1", plan, seconds=0.5, num_rows=10, dtype="complex64")
    axes = draw_roofline([run], CEILINGS).axes[0]
    (x,), (y,) = axes.lines[-1].get_data()
    assert x == plan.flops() / plan.bytes_moved("complex64") and y == 20 * plan.flops()
    roofs = {line.get_label(): line.get_ydata().max() for line in axes.lines[:-1]}
    np.testing.assert_allclose(list(roofs.values()), 1e11)


@pytest.mark.parametrize(
    ("runs", "message"), [([], "runs is empty"), ([Run("a", None, 1.0)], "'a' is in complex128.*complex64")]
)
def test_rooflines_refuse_runs_of_other_formats(runs, message):
    with pytest.raises(ValueError, match=message):
        draw_roofline(runs, CEILINGS)


def test_ceilings_are_measured():
    ceilings = measure_ceilings("complex64", num_threads=1)
    # The bounds in bytes/s and flop/s are far below and far above the rates of any computer.
    assert 1e8 < ceilings.memory_bytes_per_second < 1e13 and 1e8 < ceilings.cache_bytes_per_second < 1e13
    assert 1e8 < ceilings.flops_per_second < 1e13

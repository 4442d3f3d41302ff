# SPDX-License-Identifier: Apache-2.0
"""Modules that moved are still found at their former paths, with a warning."""

from importlib import import_module
from importlib.util import find_spec

import pytest

FORMER_PATHS = [
    ("roofline", "inspection.roofline", "measure_ceilings"),
    ("objective", "primitives.objective", "Objective"),
    ("training", "execution.expectations", "Expectations"),
    ("connector", "machine_learning.torch_connector", "FusedTorchConnector"),
]


@pytest.mark.parametrize(("old", "new", "name"), FORMER_PATHS)
def test_a_documented_path_of_before_gives_the_same_object_and_a_warning(old, new, name):
    if old == "connector" and find_spec("torch") is None:
        pytest.skip("needs torch")
    with pytest.warns(FutureWarning, match=f"qiskit_fused.{old} is now qiskit_fused.{new}"):
        found = getattr(import_module(f"qiskit_fused.{old}"), name)
    assert found is getattr(import_module(f"qiskit_fused.{new}"), name)


def test_a_name_that_no_module_has_is_an_attribute_error():
    with pytest.raises(AttributeError):
        import_module("qiskit_fused.roofline").measure_nothing  # noqa: B018

# SPDX-License-Identifier: Apache-2.0
"""The meaning of method="auto" is decided in one place, for all engines and for reports."""

import pytest

from qiskit_fused.options.method import METHODS, methods_to_try


def test_auto_stores_small_states_where_it_can_and_reverses_else():
    assert methods_to_try("auto", has_small_states=True) == ["store", "reverse"]
    assert methods_to_try("auto") == ["reverse"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_stands_for_itself(method):
    assert methods_to_try(method) == methods_to_try(method, has_small_states=True) == [method]

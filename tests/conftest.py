# SPDX-License-Identifier: Apache-2.0
"""Fixtures: every test of a primitive runs on every engine."""

import pytest


@pytest.fixture(params=["reference", "cpu"])
def device(request):
    """An engine, by the name users give it."""
    return request.param


@pytest.fixture(params=["complex128", "complex64"])
def dtype(request):
    """A number format of the amplitudes."""
    return request.param

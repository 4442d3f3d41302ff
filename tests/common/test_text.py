# SPDX-License-Identifier: Apache-2.0
"""Numbers are written for readers."""

import sys

import pytest

from qiskit_fused.common.text import count_text, whole_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (2**63 - 1, "9223372036854775807"),
        (2**63, "2^63"),
        (10**20, "more than 2^66"),
        (2**20000, "2^20000"),
        (2**20000 - 1, "more than 2^19999"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whole_numbers_of_any_size_are_written(number, text):
    assert sys.get_int_max_str_digits() < 20000 * 0.3  # Python refuses to write the largest of them
    assert whole_text(number) == text
    assert count_text(number, "outcome") == text + " outcomes"

# SPDX-License-Identifier: Apache-2.0
"""Numbers of bytes and memory limits are parsed as users write them, and written with a unit."""

import re

import pytest

from qiskit_fused.common.byte_sizes import format_bytes, parse_bytes, parse_limit
from qiskit_fused.common.free_memory import resolve_limit

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GB", 8 * 10**9),
        ("512MiB", 2**29),
        ("1.5 KiB", 1536),
        ("100b", 100),
        (" 8 gb ", 8 * 10**9),
        ("2mIb", 2**21),
        ("8", None),
        ("8G", 8 * 10**9),
        ("8 g", 8 * 10**9),
        ("512M", 512 * 10**6),
        ("8Gi", 8 * GIB),
        ("0.5GiB", GIB // 2),
        (".5GB", 5 * 10**8),
        ("100 bytes", 100),
        ("8 iB", None),
        ("i", None),
        ("x", None),
        ("1EB", None),
        ("1e3 MB", 10**9),
        ("1.5E+1kib", 15360),
        ("2e-3 GB", 2 * 10**6),
        ("1e400 GB", None),
        ("1e3", None),
    ],
)
def test_memory_sizes_are_parsed(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ("8GB", 8 * 10**9),
        ("50%", 0.5),
        ("12.5 %", 0.125),
        (0.25, 0.25),
        (1.0, 1.0),
        (1, None),
        (999, None),
        (1000, 1000),
        (8e9, 8 * 10**9),
        (2.0, None),
        ("8e9", 8 * 10**9),
        ("8000000000", 8 * 10**9),
        ("1e3 MB", 10**9),
        ("5e1%", 0.5),
        ("1e-12 GB", None),
        (float("inf"), None),
        (0, None),
        (-1, None),
        (1.5, None),
        (float("nan"), None),
        (True, None),
        ("0GB", None),
        ("0%", None),
        ("101%", None),
        ("-8GB", None),
        ("many", None),
        ([8], None),
    ],
)
def test_a_limit_is_bytes_or_a_fraction(value, limit):
    assert parse_limit(value) == limit and type(parse_limit(value)) is type(limit)


def test_a_bad_limit_is_refused_with_what_is_allowed():
    with pytest.raises(
        ValueError, match=re.escape("memory_limit is '8 apples'; allowed: None, a number of bytes from 1,000 on, a")
    ):
        resolve_limit("8 apples")


def test_bytes_are_written_with_binary_units():
    assert [format_bytes(n) for n in (2**38, 100, 1500, 2**34 * 1.5)] == ["256 GiB", "100 B", "1.46 KiB", "24 GiB"]
    assert [format_bytes(n) for n in (2**70, 2**5000, 2**70 + 1)] == [
        "2^70 bytes",
        "2^5000 bytes",
        "more than 2^70 bytes",
    ]

# SPDX-License-Identifier: Apache-2.0
"""Limits of memory: how they are written, and what of the memory is free."""

import re

import pytest

from qiskit_fused.common.limits import format_bytes, free_memory, parse_bytes, parse_limit, resolve_limit

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


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path):
    write(tmp_path, proc__meminfo="MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable:    8388608 kB\n")
    return tmp_path


def test_free_memory_is_what_linux_calls_available(machine):
    assert free_memory(machine) == 8 * GIB


def test_a_container_has_what_its_group_and_those_around_it_leave(machine):
    write(machine, proc__self__cgroup="0::/outer/inner\n")
    group = machine / "sys/fs/cgroup/outer"
    write(group, **{"memory.max": "max\n", "memory.current": "5\n", "memory.stat": "inactive_file 1\n"})
    write(group / "inner", **{"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""})
    assert free_memory(machine) == 8 * GIB
    write(group, **{"memory.max": f"{3 * GIB}\n", "memory.current": f"{2 * GIB}\n"})
    write(group, **{"memory.stat": f"anon 7\ninactive_file {GIB // 2}\n"})
    assert free_memory(machine) == 3 * GIB // 2
    write(group / "inner", **{"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"})
    assert free_memory(machine) == 0


def test_a_container_that_is_named_from_outside_finds_its_group_at_the_root(machine):
    write(machine, proc__self__cgroup="4:cpu:/x\n3:memory:/docker/abc\n")
    files = {"memory.limit_in_bytes": f"{GIB}", "memory.usage_in_bytes": "24", "memory.stat": "total_inactive_file 4\n"}
    write(machine / "sys/fs/cgroup/memory", **files)
    assert free_memory(machine) == GIB - 20


def test_a_system_that_tells_less_has_its_memory_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert free_memory(tmp_path) == 4096000
    monkeypatch.delattr("os.sysconf")
    assert free_memory(tmp_path) is None

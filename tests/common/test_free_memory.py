# SPDX-License-Identifier: Apache-2.0
"""The free memory is read from the machine, and from the limits of containers."""

import pytest

from qiskit_fused.common.free_memory import free_memory

GIB = 2**30


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

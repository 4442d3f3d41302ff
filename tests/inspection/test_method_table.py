# SPDX-License-Identifier: Apache-2.0
"""Reports compare methods by their states, bytes, sweeps and time."""

import re

import pytest
from layered_circuits import rx_ry_layers, total_z

from qiskit_fused import fuse
from qiskit_fused.engines.checkpointing import num_steps

MB = 10**6


def test_a_report_compares_methods_within_a_limit():
    plan = fuse(rx_ry_layers(16, 100), total_z(16))
    report = plan.report(1, "20MB", dtype="complex64")
    by_name = {(cost.device, cost.method, cost.num_states): cost for cost in report.costs}
    reverse, store = by_name["cpu", "reverse", 1], by_name["cpu", "store", 101]
    assert (reverse.fits, reverse.is_auto, reverse.time, reverse.forward) == (True, True, 1, 1)
    assert (store.fits, store.is_auto, store.forward) == (False, False, 1)
    assert store.time == 1
    kept = [cost for cost in report.costs if cost.method == "checkpoint"]
    assert [cost.num_states for cost in kept] == sorted((cost.num_states for cost in kept), reverse=True)
    assert [cost.time for cost in kept] == sorted(cost.time for cost in kept)
    for cost in kept:
        assert cost.forward == num_steps(101, cost.num_states) / 101
        assert cost.num_bytes == plan.memory(1, "checkpoint", "complex64", num_states=cost.num_states) <= 20 * MB
    assert by_name["cuda", "reverse", 1].num_bytes > 2 * 2**16 * 8


def test_a_printed_report_is_a_table():
    lines = str(
        fuse(rx_ry_layers(16, 100), total_z(16)).report(10, "1GB", dtype="complex64", num_threads=2)
    ).splitlines()
    assert lines[0] == "Values and gradients of 10 rows of 16 qubits in complex64, within 954 MiB"
    assert re.fullmatch(
        r"  device  method +states +memory +forward +time  fits, and what method='auto' takes on each device", lines[1]
    )
    assert re.fullmatch(r"  cpu     reverse +1 +[\d.]+ MiB +1.00 +1.00  yes  <- method='auto'", lines[2])
    assert re.fullmatch(r"  cpu     store +101 +[\d.]+ MiB +1.00 +1.00  yes", lines[3])


def test_a_report_refuses_what_is_no_limit():
    with pytest.raises(
        ValueError, match=r"memory_limit is '8 apples'; allowed: None, a number of bytes from 1,000 on, a string such"
    ):
        fuse(rx_ry_layers(4, 1)).report(1, "8 apples")

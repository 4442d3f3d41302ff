# SPDX-License-Identifier: Apache-2.0
"""Metrics of a job: what ran, added up over evaluations."""

from __future__ import annotations

from typing import Any


def add_metrics(total: dict[str, Any], stats: dict[str, Any]) -> None:
    """Add what one evaluation did to the total.

    Counts and seconds add up; of bytes, states, threads and light cones the total is the maximum. Different names, such
    as devices, are joined: "cpu + cuda".
    """
    for name, value in stats.items():
        if isinstance(value, str):
            known = total.setdefault(name, value)
            if known != value and value not in known.split(" + "):
                total[name] = f"{known} + {value}"
        elif not isinstance(value, (int, float)):
            total[name] = value
        elif name in ("bytes", "states", "num_threads", "cones"):
            total[name] = max(total.get(name, 0), value)
        else:
            total[name] = total.get(name, 0) + value

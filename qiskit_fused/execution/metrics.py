# SPDX-License-Identifier: Apache-2.0
"""Adds the stats of evaluations to the metrics of a job."""

from __future__ import annotations

from typing import Any


def add_metrics(total: dict[str, Any], stats: dict[str, Any]) -> None:
    """Add the stats of one evaluation to the total.

    Counts and seconds are added. The total of bytes, states, threads and light cones is their maximum. Different texts,
    such as the names of devices, are joined: "cpu + cuda".
    """
    for name, value in stats.items():
        if isinstance(value, str):
            text = total.setdefault(name, value)
            if text != value and value not in text.split(" + "):
                total[name] = f"{text} + {value}"
        elif not isinstance(value, (int, float)):
            total[name] = value
        elif name in ("bytes", "states", "num_threads", "cones"):
            total[name] = max(total.get(name, 0), value)
        else:
            total[name] = total.get(name, 0) + value

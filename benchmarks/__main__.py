# SPDX-License-Identifier: Apache-2.0
"""Run a benchmark or show its tables: ``python benchmarks COMMAND [options]``.

The command is one of main, scan, deep, training, sampling, kernels, curvature and gpu (a benchmark; --help lists its
options), report (prints the tables of a results file again) and readmes (writes the newest results into the READMEs).
"""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = ("main", "scan", "deep", "training", "sampling", "kernels", "curvature", "gpu")
COMMANDS = {
    **{name: (f"{name}.run", "main") for name in BENCHMARKS},
    "report": ("readmes", "show"),
    "readmes": ("readmes", "update"),
}


def run() -> int | None:
    """Run the command that the first argument names; return its exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(f"{__doc__}\nunknown command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv = [f"python benchmarks {name}", *sys.argv[2:]]
    module, function = COMMANDS[name]
    return getattr(importlib.import_module(module), function)()


if __name__ == "__main__":
    sys.exit(run())

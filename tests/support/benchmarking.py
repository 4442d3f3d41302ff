# SPDX-License-Identifier: Apache-2.0
"""Helpers for tests of the benchmarks. The benchmarks are not a package, so tests put their folder on the path."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run_benchmark(*arguments, **environment):
    """Run ``python benchmarks`` in a process with the same package path."""
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, str(BENCHMARKS), *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


class InProcess:
    """A worker inside this process, so that a test can supply its own contender."""

    def __init__(self, worker, contender, dtype="complex64"):
        self.current, self.error = worker._current, worker.WorkerError
        self.contender, self.dtype, self.state = contender, dtype, {"contender": contender(dtype, 1)}

    def call(self, function, *arguments, **keywords):
        self.current.clear()
        self.current.update(self.state)
        try:
            return function(*arguments, **keywords)
        except Exception as error:
            raise self.error(str(error)) from error
        finally:
            self.state = dict(self.current)

    def close(self):
        pass

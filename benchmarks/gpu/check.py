# SPDX-License-Identifier: Apache-2.0
"""Check the CUDA engine on a machine with a GPU, the most important checks first, within 15 minutes.

    make gpu-check                                  # or: python benchmarks/gpu/check.py --out build/gpu-check

The steps are: the doctor, kernels under compute-sanitizer, the tests of the engine on the device, the benchmark, and a
report of ncu on one backward sweep. Each step writes its output to a file of its own while it runs, and ``summary.txt``
has a line for each finished step. A step that would end after the time limit is stopped. The exit status is 1 if a step
failed. Tools that are not installed are named and left out.

Packages may come from a folder of wheels (``collect_wheels.py`` fills one): ``--wheels FOLDER`` installs them without
an index. ``--fake`` rehearses all steps on the fake devices of the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
SCENARIOS = Path(__file__).with_name("scenarios.py")
MINUTE = 60.0
LIMIT = 15 * MINUTE
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
TESTS = ("tests/engines/cuda", "tests/engines", "tests/execution/test_device_arrays.py", "tests/torch")


@dataclass(frozen=True)
class Step:
    """A check: a command, and the largest number of seconds that it may take.

    Attributes:
        name: name of the step and of the file of its output.
        command: the command. The first part is a program that may be missing.
        seconds: the step is stopped after this time.
    """

    name: str
    command: tuple[str, ...]
    seconds: float


def steps(python: tuple[str, ...], pytest: tuple[str, ...], out: Path) -> list[Step]:
    """Return the steps, the most important first.

    Args:
        python: the command that runs a file or module of Python with the device.
        pytest: options of pytest.
        out: the folder of the results.
    """
    found = [Step("doctor", (*python, "-m", "qiskit_fused"), MINUTE)]
    for tool in TOOLS:
        options = ("--tool", tool, "--error-exitcode", "9", "--log-file", str(out / f"{tool}.txt"))
        command = ("compute-sanitizer", *options, *python, str(SCENARIOS))
        found.append(Step(tool, command, 2 * MINUTE))
    found.append(Step("tests", (*python, "-m", "pytest", "-q", "-x", *pytest, "-m", "gpu", *TESTS), 6 * MINUTE))
    bench = ("gpu", "--only", "(i),(ii)", "--peers", "")
    found.append(Step("bench", (*python, str(ROOT / "benchmarks"), *bench), 3 * MINUTE))
    report = (
        "--clock-control",
        "none",
        "--set",
        "full",
        "-k",
        "backward_sweep",
        "-c",
        "1",
        "-f",
        "-o",
        str(out / "ncu"),
    )
    found.append(Step("ncu", ("ncu", *report, *python, str(SCENARIOS), "--profile"), 2 * MINUTE))
    return found


def run(steps: list[Step], out: Path, limit: float, environment: dict[str, str] | None = None) -> Iterator[str]:
    """Run steps in order, and yield the result of each: "ok", "failed (1)", or why it was stopped or left out.

    Args:
        steps: the steps.
        out: the folder of the results.
        limit: seconds for all steps together.
        environment: environment variables of the commands.
    """
    started = time.monotonic()
    with (out / "summary.txt").open("w", buffering=1) as summary:
        for step in steps:
            begun = time.monotonic()
            result = _run_step(step, out, min(step.seconds, limit - (begun - started)), environment)
            summary.write(f"{step.name}: {result}, {time.monotonic() - begun:.0f} s\n")
            yield result


def _run_step(step: Step, out: Path, seconds: float, environment: dict[str, str] | None) -> str:
    if shutil.which(step.command[0]) is None:
        return f"left out, {step.command[0]} is not in PATH"
    if seconds <= 0:
        return "left out, the time is over"
    with (out / f"{step.name}.log").open("wb") as log:
        try:
            done = subprocess.run(
                step.command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return "stopped, it took too long"
    return "ok" if done.returncode == 0 else f"failed ({done.returncode})"


def main() -> int:
    """Run all steps; the exit status is 1 if one of them failed or was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu-check", help="folder of the results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, from which missing packages are installed")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for all steps together")
    parser.add_argument("--fake", action="store_true", help="rehearse on fake devices")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.wheels:
        wheels = sorted(str(path) for path in options.wheels.glob("*.whl"))
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels], check=True
        )
    python = (sys.executable, "-m", "fake_driver") if options.fake else (sys.executable,)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    plugin = ("-p", "fake_driver.plugin") if options.fake else ()
    results = []
    for step, result in zip(
        found := steps(python, plugin, options.out), run(found, options.out, options.limit, environment)
    ):
        print(f"{step.name}: {result}", flush=True)
        results.append(result)
    print(f"results: {options.out}")
    return int(any(result.startswith(("failed", "stopped")) for result in results))


if __name__ == "__main__":
    sys.exit(main())

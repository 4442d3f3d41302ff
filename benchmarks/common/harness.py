# SPDX-License-Identifier: Apache-2.0
"""The work of every benchmark around its measurements: options, CPUs, the machine, the results file."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import own
from common.worker import alone

Record = dict[str, Any]


def make_parser(description: str | None, parts: str, peers: Collection[str] = ()) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have; `parts` says from which parts --only chooses."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    # The name "W1 (12,20)" contains a comma, so names are separated by ';' or by ',' outside brackets.
    names = lambda text: [part.strip() for part in re.split(r"[;,](?![^(]*\))", text) if part.strip()]  # noqa: E731
    parser.add_argument("--only", type=names, default=[], metavar="A,B", help=parts)
    if peers:
        parser.add_argument(
            "--peers", type=names, default=list(peers), help=f"some of {','.join(peers)}, or '' for none"
        )
    parser.add_argument("--quick", action="store_true", help="tiny sizes in seconds, nothing written")
    parser.add_argument("--threads", type=int, default=2, help="CPUs for every contender (default 2)")
    parser.add_argument("--device", help="folder under benchmarks/results (default: the name of the CPU)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the results file; pictures go beside it")
    parser.add_argument("--no-save", action="store_true", help="write no files")
    return parser


def refuse_unknown(parser: argparse.ArgumentParser, what: str, given: Iterable[str], known: Collection[str]) -> None:
    """End with an error if a given name is not among the known names."""
    if unknown := set(given) - set(known):
        parser.error(f"unknown {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")


def need_matplotlib(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error before anything is measured if pictures are to be drawn and matplotlib is not installed."""
    if (options.output or not (options.quick or options.no_save)) and find_spec("matplotlib") is None:
        parser.error("pictures need matplotlib; pip install matplotlib, or --no-save")


def claim_cpus(num_threads: int) -> None:
    """Give this process and its children `num_threads` CPUs, one per core where there are enough cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "QULACS_NUM_THREADS"):
        os.environ[name] = str(num_threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if not hasattr(os, "sched_setaffinity"):
        return
    cpus = sorted(os.sched_getaffinity(0))
    cores: dict[str, int] = {}
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    chosen = sorted(cores.values())
    os.sched_setaffinity(0, (chosen + [cpu for cpu in cpus if cpu not in chosen])[:num_threads])


def busy_cpus(seconds: float = 0.3) -> float | None:
    """Return how many of our CPUs other processes keep busy while all contenders are idle; None where unknown."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    time.sleep(0.05)  # OpenMP threads spin a while after their last job

    def idle_ticks() -> int:
        lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
        ours = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
        return sum(int(line[4]) + int(line[5]) for line in lines if line and line[0] in ours)

    try:
        before = idle_ticks()
        time.sleep(seconds)
        idle = (idle_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds
    except OSError:
        return None
    return round(max(len(os.sched_getaffinity(0)) - idle, 0.0), 2)


def describe(options: argparse.Namespace, packages: Iterable[str], peers: Iterable[str] = ()) -> Record:
    """Return the first entries of a results file; it is partial if the options leave parts or some of `peers` out."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {"cpu": _cpu_name(), "simd": alone(own.simd_level), "num_cpus": os.cpu_count(),
                    "platform": platform.platform(), "python": platform.python_version()},
        "num_threads": options.threads,
        "versions": {name: version(name) for name in packages},
        "revision": revision(),
        "partial": bool(options.quick or options.only or set(peers) - set(getattr(options, "peers", ()))),
    }  # fmt: skip


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1).strip() if found else platform.machine()


def version(package: str) -> str | None:
    """Return the version of an installed distribution; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def revision() -> str | None:
    """Return the commit of this checkout; None where there is no git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def save(results: Record, options: argparse.Namespace, suffix: str = "") -> Path | None:
    """Write the results file that the options ask for; return its path, or None for no file."""
    if not options.output and (options.quick or options.no_save):
        return None
    cpu = re.sub(r"\((r|tm)\)", "", results["machine"]["cpu"].lower())
    device = results["gpu"]["name"].lower() if "gpu" in results else f"{cpu} {os.cpu_count()} cpu"
    name = options.device or re.sub(r"[^a-z0-9]+", "-", device).strip("-")
    folder = Path(__file__).parent.parent / "results" / name
    path = options.output or folder / f"{results['date'][:16].replace(':', '')}{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {path}")
    return path


def progress(text: str) -> None:
    """Write a line over the line before, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

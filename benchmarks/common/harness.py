# SPDX-License-Identifier: Apache-2.0
"""What every benchmark does around its measurements: options, CPUs, the machine, the results file."""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import own

Record = dict[str, Any]


def make_parser(description: str | None, parts: str, peers: Collection[str] = ()) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have; `parts` says what --only chooses from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    # "W1 (12,20)" holds a comma, so names are separated by ';' or by ',' outside brackets.
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
    """End with an error if something given does not exist."""
    if unknown := set(given) - set(known):
        parser.error(f"unknown {what} {', '.join(sorted(unknown))}; there are {', '.join(known)}")


def need_matplotlib(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with an error if pictures will be drawn and cannot be: now, not after all has been measured."""
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
    """Return how many of our CPUs others keep busy, measured while all contenders are idle; None where unknown."""
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
    """Return what every results file starts with; it is partial if the options leave parts or `peers` out."""
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
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process: its peak memory is its own, and so is its death."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Call a function in a new process; return its result, and the error's text or None."""
    try:
        return alone(function, *arguments), None
    except Exception as error:
        return None, f"{type(error).__name__}: {str(error).strip()}".splitlines()[0][:200]


def save(results: Record, options: argparse.Namespace, suffix: str = "") -> Path | None:
    """Write the results file that the options ask for; return its path, None for no file."""
    if not options.output and (options.quick or options.no_save):
        return None
    cpu = re.sub(r"\((r|tm)\)", "", results["machine"]["cpu"].lower())
    name = options.device or re.sub(r"[^a-z0-9]+", "-", f"{cpu} {os.cpu_count()} cpu").strip("-")
    folder = Path(__file__).parent.parent / "results" / name
    path = options.output or folder / f"{results['date'][:16].replace(':', '')}{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\nwritten to {path}")
    return path


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

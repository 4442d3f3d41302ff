# SPDX-License-Identifier: Apache-2.0
"""Collect wheels for a GPU machine without an index: ``python benchmarks/gpu/collect_wheels.py FOLDER [--build]``.

The wheels are for CPython 3.12 on x86-64 Linux, whatever Python runs this script. Large packages that GPU machines have
already are left out: NumPy, SciPy, scikit-learn, PyTorch with Triton, CuPy, JAX, CMake and a C++ compiler. ``--build``
adds a wheel of qiskit-fused itself, for machines without a compiler. It needs CPython 3.12, and a C library that is no
newer than the C library of these machines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PYTHON_VERSION = "3.12"
LIMIT = 40 * 2**20  # largest size of all wheels together in bytes
PLATFORMS = [f"{name}_x86_64" for name in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")]
PACKAGES = {
    "to run": ("qiskit>=2.4,<3", "qiskit-machine-learning>=0.9,<0.10", "rustworkx", "stevedore", "dill", "setuptools",
               "typing-extensions", "joblib", "threadpoolctl"),
    "to build": ("scikit-build-core>=1,<2", "nanobind>=2.9", "pathspec", "packaging", "ninja"),
    "to test": ("pytest>=8", "iniconfig", "pluggy", "pygments", "hypothesis>=6.100", "sortedcontainers",
                "qiskit-algorithms>=0.4", "tqdm"),
    "peers": ("triton-qml==0.1.0", "tensorcircuit-ng>=1.4", "tensornetwork-ng", "graphviz", "opt-einsum"),
}  # fmt: skip


def main() -> int:
    """Download the wheels; the exit status is 1 if they are larger than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the wheels go; wheels that lie there already are kept")
    parser.add_argument("--build", action="store_true", help="also build a wheel of qiskit-fused with this Python")
    options = parser.parse_args()
    if options.build and sys.version_info[:2] != (3, 12):
        parser.error(f"--build needs CPython {PYTHON_VERSION}; this is {sys.version.split()[0]}")
    options.folder.mkdir(parents=True, exist_ok=True)
    download = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={PYTHON_VERSION}",
    ]
    download += [f"--abi={abi}" for abi in ("cp312", "abi3", "none")] + [f"--platform={name}" for name in PLATFORMS]
    requirements = [requirement for group in PACKAGES.values() for requirement in group]
    _pip(*download, f"--dest={options.folder}", *requirements)
    if options.build:
        root = Path(__file__).resolve().parent.parent.parent
        _pip("wheel", "--no-deps", f"--wheel-dir={options.folder}", str(root))
    wheels = sorted(options.folder.glob("*.whl"), key=lambda path: path.name.lower())
    total = sum(wheel.stat().st_size for wheel in wheels)
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")
    print(f"{total / 2**20:6.2f} MiB  in {len(wheels)} wheels, {LIMIT / 2**20:.0f} MiB at most")
    return 0 if total <= LIMIT else 1


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())

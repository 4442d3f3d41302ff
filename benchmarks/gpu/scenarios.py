# SPDX-License-Identifier: Apache-2.0
"""Run the scenarios that reach every kernel on the current GPU, for compute-sanitizer; or one large sweep, for ncu.

Each array is an allocation of its own (CuPy's pool is switched off), so that memcheck sees the end of every array.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import numpy as np
from asking import ask
from engine_cases import all_pairs, plan_of, total_z
from kernel_scenarios import ON_ANY_DEVICE
from layered_circuits import hardware_efficient

from qiskit_fused.engines.cuda.availability import usable_gpu
from qiskit_fused.engines.cuda.engine import CudaEngine


def main() -> int:
    """Run the scenarios; the exit status is 1 without a usable GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true", help="run one backward sweep that fills the device")
    options = parser.parse_args()
    runtime, reason = usable_gpu()
    if runtime is None:
        print(reason, file=sys.stderr)
        return 1
    with runtime.context():
        if options.profile:
            plan, operators = plan_of(hardware_efficient(12, 50), total_z(12))
            columns = np.tile(np.linspace(-1, 1, plan.program.num_columns), (1000, 1))
            ask(CudaEngine(runtime), plan, operators, columns, all_pairs(1000, 1), gradient=True, dtype="complex64")
            return 0
        runtime.xp.cuda.set_allocator(None)
        for name, scenario in ON_ANY_DEVICE.items():
            scenario(runtime)
            print(f"{name}: agrees with the reference", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Run a file or a module of Python on fake devices: ``python -m fake_driver [-m] NAME ARGUMENTS``."""

import runpy
import sys

from . import install

if __name__ == "__main__":
    install()
    if sys.argv[1] == "-m":
        sys.argv = sys.argv[2:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")

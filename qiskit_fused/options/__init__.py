# SPDX-License-Identifier: Apache-2.0
"""The options of the primitives. Keywords of the user come in, and checked `FusedOptions` go out.

May import only ``common``.
"""

from qiskit_fused.options.fused_options import FusedOptions, FusedOptionsDict

__all__ = ["FusedOptions", "FusedOptionsDict"]

# SPDX-License-Identifier: Apache-2.0
"""Program -> fused program: layers, phases, light cones and partitions."""

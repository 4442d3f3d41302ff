# SPDX-License-Identifier: Apache-2.0
"""The CUDA engine: its planning, its memory and its kernels on a device."""

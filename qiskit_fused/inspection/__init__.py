# SPDX-License-Identifier: Apache-2.0
"""Plans for people: a fused program becomes text, tables, sentences and pictures.

May import ``execution`` and the folders before it.
"""

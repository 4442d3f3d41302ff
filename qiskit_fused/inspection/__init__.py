# SPDX-License-Identifier: Apache-2.0
"""Plans for people: a fused program comes in, text, tables, sentences and pictures go out.

May import ``execution`` and the folders before it.
"""

# SPDX-License-Identifier: Apache-2.0
"""Pictures of plans: the layout of a picture as data, drawn with matplotlib or as text.

May import the modules of ``inspection`` itself and the folders before it.
"""

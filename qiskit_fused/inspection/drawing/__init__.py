# SPDX-License-Identifier: Apache-2.0
"""Pictures of plans: the layout of a picture as data, drawn with matplotlib or as text."""

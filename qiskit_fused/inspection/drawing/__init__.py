# SPDX-License-Identifier: Apache-2.0
"""Pictures of plans: a fused program becomes a layout, which is data; matplotlib or plain text shows the layout.

May import the modules of ``inspection`` itself and the folders before it.
"""

# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest that runs tests on fake devices: ``python -m pytest -p fake_driver.plugin -m gpu tests``."""

from . import install

install()

"""Skips the test module that imports this where the extra [serve] is not installed."""

import pytest

from retinanet.cli.serve_command import NEEDED

for name in NEEDED:
    pytest.importorskip(name, reason="the extra [serve] is not installed")

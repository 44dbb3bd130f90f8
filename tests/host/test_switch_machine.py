# SPDX-License-Identifier: GPL-2.0
"""The driver's state machine, searched exhaustively outside the kernel."""

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.stock_kernel("no guest")

SOURCE = Path(__file__).parents[1] / "switch" / "explore.rs"


def test_all_interleavings(tmp_path):
    """Users, device, host and work item in every order keep the promises."""
    program = tmp_path / "explore"
    subprocess.run(
        ["rustc", "--edition", "2021", "-O", "-D", "warnings", "--test",
         "-o", program, SOURCE],
        check=True,
    )
    subprocess.run([program, "--nocapture"], check=True, timeout=120)

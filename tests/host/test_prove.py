# SPDX-License-Identifier: GPL-2.0
"""The quick form of "make prove": nothing is lost, and the controls lose."""

import os
import random
import re

import pytest

from prove import __main__ as prove
from prove.trials import PROFILES, TRIALS, run, seed_of

pytestmark = pytest.mark.stock_kernel("file systems, and broken drivers, are those of the stock kernel")

QUICK = [entry for entry in TRIALS.values() if entry.quick]


@pytest.fixture(scope="module")
def seed():
    """What VBW_PROVE_SEED says, or something else each time; a failure names it."""
    return int(os.environ.get("VBW_PROVE_SEED") or random.SystemRandom().getrandbits(32))


@pytest.mark.parametrize("entry", QUICK, ids=[entry.name for entry in QUICK])
def test_trial(env, seed, entry):
    """Ours must lose nothing, a control has to lose something."""
    result = run(env, entry, seed_of(seed, entry.name, 0), PROFILES["quick"][0])
    if result.skipped:
        pytest.skip(result.skipped)
    assert not result.broken, f"seed {seed}: {result.broken}"
    assert result.acknowledged > 50
    assert (result.lost > 0) == entry.control, prove.text_of(result)


def test_table(folder, monkeypatch, capsys):
    """What "make prove" prints is in a table beside the logs as well."""
    monkeypatch.setenv("VBW_OUT", str(folder))
    monkeypatch.setattr("sys.argv", ["prove", "--seconds", "5", "L7"])
    assert prove.main() == 0
    printed = re.search(r"prove: (\d+) acknowledged", capsys.readouterr().out)
    assert printed
    rows = [line.strip("| \n").split(" | ") for line in (folder / "prove/table.md").read_text().splitlines()]
    assert [row[0] for row in rows] == ["trial", "---", "`L7`", "all but controls and others"]
    assert [int(row[1].replace(",", "")) for row in rows[2:]] == [int(printed[1])] * 2

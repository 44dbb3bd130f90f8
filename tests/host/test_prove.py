# SPDX-License-Identifier: GPL-2.0
"""The quick form of "make prove": nothing is lost, and the controls lose."""

import os
import random

import pytest

from prove import __main__ as prove
from prove.trials import PROFILES, TRIALS, run, seed_of

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

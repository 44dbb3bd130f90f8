# SPDX-License-Identifier: GPL-2.0
"""What fuzzing has kept: the driver gets over each input, and the guest's kernel does not complain."""

import pytest

from fuzz.inputs import CORPUS, read_corpus
from fuzz.target import DEVICES, Target

pytestmark = pytest.mark.pinned_kernel("the inputs are those that reach its code")


@pytest.mark.parametrize("device", DEVICES)
def test_corpus(env, folder, device):
    """Every input that has reached code of its own once."""
    target = Target(env, folder, device)
    try:
        answers = [target.run(entry) for entry in read_corpus(CORPUS, device)]
        target.check()
    finally:
        bad = target.close()
    assert not bad
    # Set-ups that only have refused disks, or none, would test little.
    assert answers.count("d") > len(answers) / 4
    assert len(answers) < 10 or "r" in answers

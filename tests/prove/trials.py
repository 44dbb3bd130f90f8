# SPDX-License-Identifier: GPL-2.0
"""The list of trials, and how one is run."""

import hashlib
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from vbw.env import Env

from .bench import Bench, NotHere

# How long a load lasts, in seconds, and how often the list is gone through.
PROFILES = {"quick": (5, 1), "normal": (20, 1), "long": (50, 1)}


@dataclass(frozen=True)
class Trial:
    """A trial: run() makes a guest write and acknowledge. A control is one that has to lose."""

    name: str
    run: Callable[[Bench], None]
    what: str
    control: bool = False
    # In the quick profile, which is part of make check.
    quick: bool = False
    # How many times as long as the others it lasts in the long profile.
    long: float = 1
    # What it is known to lose today, until that is mended: not in the quick profile.
    red: str = ""
    # Who else loses something in it, with any disk: that is counted apart.
    foreign: str = ""


@dataclass
class Result:
    """What came of a trial."""

    trial: Trial
    seed: int
    acknowledged: int = 0
    lost: int = 0
    seconds: float = 0.0
    notes: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    # Why it says nothing, if so.
    broken: str = ""
    # What this machine lacks for it, if so.
    skipped: str = ""

    @property
    def good(self) -> bool:
        """Ours must not lose, a control has to, and both must have been what they say they are."""
        as_it_should = bool(self.trial.foreign) or (self.lost > 0) == self.trial.control
        return bool(self.skipped) or not self.broken and self.acknowledged > 0 and as_it_should


TRIALS: dict[str, Trial] = {}


def trial(name: str, **options: object) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    """Put a function into the list; what it does is said by its comment, or by an option."""
    def add(run: Callable[[Bench], None]) -> Callable[[Bench], None]:
        if "what" not in options:
            options["what"] = (run.__doc__ or "").strip().splitlines()[0]
        TRIALS[name] = Trial(name, run, **options)  # type: ignore[arg-type]
        return run
    return add


def seed_of(master: int, name: str, turn: int) -> int:
    """The seed of one trial in one turn, which is all that it depends on."""
    digest = hashlib.sha256(f"{master}/{name}/{turn}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def run(env: Env, entry: Trial, seed: int, seconds: float) -> Result:
    """Run one trial. Its folder stays if it is not good."""
    result = Result(entry, seed)
    folder = env.out / "prove" / f"{entry.name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.monotonic()
    bench = Bench(env, folder, seed, seconds)
    try:
        entry.run(bench)
        bench.finish()
    except NotHere as error:
        result.skipped = str(error)
    except Exception as error:  # whatever it is, the next trial is to run
        result.broken = f"{type(error).__name__}: {error}\nlogs: {folder}"
        (folder / "traceback").write_text(traceback.format_exc())
    finally:
        bench.close()
    judge = getattr(bench, "judge", None)
    if judge:
        result.acknowledged = judge.acknowledged
        result.lost = judge.lost
        result.examples = judge.examples
        if judge.lost:
            result.examples = ["lost: " + ", ".join(f"{count} {rule}" for rule, count in judge.lost_by_rule.items()),
                               *judge.examples]
        if judge.problems and not result.broken:
            result.broken = "; ".join(judge.problems)
        if result.acknowledged and not result.broken and bench.sent_is_known and bench.notes.get("sent", 0) != judge.acknowledged:
            result.broken = f"{bench.notes.get('sent')} were sent, {judge.acknowledged} came"
        for name in ("write", "write+fua", "flush"):
            bench.note(name, judge.storage.counts[name])
    result.notes = bench.notes
    result.seconds = time.monotonic() - began
    if result.good:
        shutil.rmtree(folder, ignore_errors=True)
    return result

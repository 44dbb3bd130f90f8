# SPDX-License-Identifier: GPL-2.0
"""make prove: run trials, and say what was acknowledged and what was lost."""

import argparse
import dataclasses
import fnmatch
import importlib
import os
import random
import sys
from pathlib import Path

from vbw import env as vbw_env
from vbw.env import Env

from .trials import PROFILES, TRIALS, Result, run, seed_of

# Each of these puts trials into the list.
for _name in ("raw", "stacks", "files", "formats", "systems", "databases", "journeys", "operations", "vhost", "controls"):
    importlib.import_module(f"prove.{_name}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="prove", description=__doc__)
    parser.add_argument("trial", nargs="*", help="which: names or patterns; all by default")
    parser.add_argument("--profile", choices=list(PROFILES), default="normal",
                        help="quick: minutes, what is green; long: hours")
    parser.add_argument("--seed", type=int, help="what an earlier run printed")
    parser.add_argument("--turns", type=int, help="how often")
    parser.add_argument("--seconds", type=float, help="how long each load lasts")
    parser.add_argument("--list", action="store_true", help="say what there is")
    return parser.parse_args()


def load_env() -> Env:
    """What is to be judged: what the build side has made, or what VBW_PROVE_* name instead."""
    env = vbw_env.load()
    if os.environ.get("VBW_PROVE_MODULE"):
        env = dataclasses.replace(env, module=Path(os.environ["VBW_PROVE_MODULE"]))
    if os.environ.get("VBW_PROVE_QEMU"):
        env = dataclasses.replace(env, qemu=Path(os.environ["VBW_PROVE_QEMU"]))
    return env


def text_of(result: Result) -> str:
    """One line for a result, and more if it is not what it should be."""
    notes = ", ".join(f"{value} {name}" for name, value in result.notes.items() if name != "sent" and value)
    verdict = ("skip" if result.skipped else "BROKEN" if result.broken else "other" if result.good and result.trial.foreign
               else "ok" if result.good else "BLIND" if result.trial.control else "LOST")
    text = (f"{verdict:6} {result.trial.name:20} {result.acknowledged:8} acknowledged {result.lost:6} lost"
            f"  {result.seconds:4.0f} s  seed {result.seed}  {notes}")
    more = [each for each in (result.skipped, result.broken) if each]
    if result.lost and not result.trial.control:
        more += result.examples
    return "\n    ".join([text, *"\n".join(more).splitlines()])


def table_of(results: list[Result]) -> str:
    """A row for each trial, turns added up, and the sum, in Markdown."""
    head = ["trial", "acknowledged", "failed writes", "switches", "cuts", "lost"]
    rows: dict[str, list[int]] = {}
    for result in results:
        name = f"`{result.trial.name}`" + " (control)" * result.trial.control + " (others)" * bool(result.trial.foreign)
        notes = result.notes
        switches = sum(notes.get(name, 0) for name in ("switches", "host switches"))
        values = [result.acknowledged, notes.get("failed", 0), switches, notes.get("cuts", 0), result.lost]
        rows[name] = [old + new for old, new in zip(rows.get(name, [0] * len(values)), values)]
    ours = [values for name, values in rows.items() if not name.endswith(")")]
    rows["all but controls and others"] = [sum(column) for column in zip(*ours)]
    lines = [head, ["---"] * len(head), *([name, *(f"{value:,}" for value in values)] for name, values in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Run what was asked for; 0 if nothing was lost and every control has lost."""
    args = parse()
    chosen = [entry for entry in TRIALS.values()
              if not args.trial or any(fnmatch.fnmatch(entry.name, pattern) for pattern in args.trial)]
    if args.profile == "quick" and not args.trial:
        chosen = [entry for entry in chosen if entry.quick]
    if args.list:
        for entry in chosen:
            kind = ("control" if entry.control else "other" if entry.foreign else "red" if entry.red
                    else "quick" if entry.quick else "")
            print(f"{entry.name:24} {kind:8} {entry.what}")
        return 0
    if not chosen:
        print("no such trial; see --list")
        return 2
    seconds, turns = PROFILES[args.profile]
    seconds, turns = args.seconds or seconds, args.turns or turns
    master = args.seed if args.seed is not None else random.SystemRandom().getrandbits(32)
    env = load_env()
    table = env.out / "prove/table.md"
    table.parent.mkdir(parents=True, exist_ok=True)
    print(f"seed {master}; module {env.module}, QEMU {env.qemu}; logs in {table.parent}, results also in {table.name}",
          flush=True)

    acknowledged = lost = by_controls = by_others = bad = 0
    results = []
    for turn in range(turns):
        for entry in chosen:
            share = entry.long if args.profile == "long" else 1
            result = run(env, entry, seed_of(master, entry.name, turn), seconds * share)
            print(text_of(result), flush=True)
            results.append(result)
            table.write_text(table_of(results))
            bad += not result.good
            acknowledged += result.acknowledged
            if entry.control:
                by_controls += result.lost
            elif entry.foreign:
                by_others += result.lost
            else:
                lost += result.lost
    if by_others:
        print(f"{by_others} lost by others than driver and device, as --list says")
    if bad:
        print(f"{bad} trials were not what they should be (seed {master})")
    print(f"prove: {acknowledged} acknowledged, {lost} lost, {by_controls} lost by controls")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

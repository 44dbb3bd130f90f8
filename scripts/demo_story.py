# SPDX-License-Identifier: GPL-2.0
"""What the demo prints, and the count of what it has checked."""

import os
import sys
import time

_COLUMN = 13


class Failed(Exception):
    """Something is not what it has to be."""


class Story:
    """What is shown. Whatever is compared is shown as it was found."""

    def __init__(self) -> None:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._bold, self._dim, self._red, self._green, self._plain = (
            ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if colour else ("",) * 5)
        self.step_number = 0
        self.checks = 0
        self.start = time.monotonic()

    def step(self, title: str, columns: tuple[str, str] | None = None) -> None:
        """The next part of the story; with the names of two things that it sets beside each other."""
        self.step_number += 1
        print(f"\n{self._bold}{self.step_number}. {title}{self._plain}", flush=True)
        if columns:
            print(f"{'':65}{columns[0]:<{_COLUMN}}  {columns[1]}", flush=True)

    def line(self, who: str, what: str) -> None:
        """Something that was done or seen."""
        print(f"   {self._dim}{who:>5} |{self._plain} {what}", flush=True)

    def check(self, who: str, what: str, expected: object, found: object) -> None:
        """Something that was seen, and what it has to be."""
        self.checks += 1
        self.line(who, f"{what}: {found}")
        if found != expected:
            raise Failed(f"{what} should be '{expected}'")

    def beside(self, who: str, what: str, *sides: tuple[object, object], verdict: bool = False) -> None:
        """The same for two things: what each has to be, and what was seen of it."""
        self.checks += len(sides)
        colours = (self._red, self._green) if verdict else ("", "")
        left, right = (f"{colour}{found}{self._plain if colour else ''}" for colour, (_, found) in zip(colours, sides))
        gap = " " * (_COLUMN + 2 - len(str(sides[0][1])))
        self.line(who, f"{what:<53} {left}{gap}{right}")
        for expected, found in sides:
            if found != expected:
                raise Failed(f"{what} should be '{expected}', and not '{found}'")

    def verdict(self, problem: str) -> int:
        """The last line; returns the exit status."""
        seconds = time.monotonic() - self.start
        if problem:
            print(f"\n{self._bold}FAILED{self._plain} in step {self.step_number}: {problem}")
            return 1
        print(f"\n{self._bold}PASSED{self._plain}: {self.checks} checks in {seconds:.0f} s")
        return 0

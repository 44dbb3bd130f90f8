# SPDX-License-Identifier: GPL-2.0
"""Read KTAP, the kernel's test output, as the guest's scripts print it."""

import re
from dataclasses import dataclass, field

_PLAN = re.compile(r"1\.\.(\d+)$")
_RESULT = re.compile(r"(not )?ok (\d+)(?: -)?(?: ([^#]*?))?(?:\s*# (SKIP|XFAIL)\b\s*(.*))?$")


@dataclass
class Result:
    """One test line, with the diagnostics that came before it."""

    number: int
    name: str
    outcome: str  # "pass", "fail" or "skip"
    reason: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class Report:
    """Everything a script reported."""

    plan: int | None = None
    results: dict[str, Result] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def parse(text: str) -> Report:
    """Parse a script's output; what contradicts the format is a problem."""
    report = Report()
    notes: list[str] = []
    for line in text.splitlines():
        plan = _PLAN.match(line)
        result = _RESULT.match(line)
        if plan:
            if report.plan is not None:
                report.problems.append(f"second plan: {line}")
            report.plan = int(plan.group(1))
        elif result:
            bad, number, name, directive, reason = result.groups()
            _add(report, Result(int(number), name or number, _outcome(bad, directive),
                                reason or "", notes))
            notes = []
        elif not re.match(r"(K?TAP version \d+)$", line):
            notes.append(line)
    if report.plan is None:
        report.problems.append("no plan (1..N)")
    elif report.plan != len(report.results):
        report.problems.append(f"{report.plan} tests planned, {len(report.results)} reported")
    if notes:
        report.problems.append("after the last test: " + " / ".join(notes[-10:]))
    return report


def _outcome(bad: str | None, directive: str | None) -> str:
    if directive == "SKIP":
        return "skip"
    return "fail" if bad else "pass"


def _add(report: Report, result: Result) -> None:
    if result.number != len(report.results) + 1:
        report.problems.append(f"test {result.number} is out of order")
    if result.name in report.results:
        report.problems.append(f"two tests named {result.name}")
    report.results[result.name] = result

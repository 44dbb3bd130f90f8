# SPDX-License-Identifier: GPL-2.0
"""The guest's scripts as pytest tests: one for each of their KTAP lines.

A script's tests are known from its own --list before anything runs. All tests of
a script in one scenario share one machine and one run of the script.
"""

import base64
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import env as vbw_env
from . import kernel_log, ktap
from .guest import GuestError
from .scenarios import SCENARIOS, Scenario
from .vm import VM

FIRST_LINES = "first-lines"
RUNS = pytest.StashKey[dict[str, "ScriptRun"]]()


class ScriptFailed(Exception):
    """A test of a guest's script has failed; the message is all there is to say."""


@dataclass
class ScriptRun:
    """What came out of running a script once."""

    folder: Path
    report: ktap.Report = field(default_factory=ktap.Report)
    complaints: dict[str, list[str]] = field(default_factory=dict)
    broken: str = ""


class GuestScript(pytest.File):
    """A script of the guest."""

    def collect(self) -> Iterator["ScenarioNode"]:
        scenarios = SCENARIOS.get(self.path.name)
        if not scenarios:
            raise self.CollectError(f"no scenario for {self.path.name} in scenarios.py")
        listed = subprocess.run(["sh", str(self.path), "--list"], check=True,
                                capture_output=True, text=True).stdout.split()
        if not listed:
            raise self.CollectError(f"{self.path.name} lists no tests")
        for scenario in scenarios:
            yield ScenarioNode.from_parent(self, name=scenario.name, scenario=scenario,
                                           tests=listed)


class ScenarioNode(pytest.Collector):
    """A script in one scenario."""

    def __init__(self, *, scenario: Scenario, tests: list[str], **more: object) -> None:
        super().__init__(**more)
        self.scenario = scenario
        self.tests = tests
        self.group = f"{self.path.name}-{scenario.name}"

    def collect(self) -> Iterator["GuestItem"]:
        for test in self.tests:
            item = GuestItem.from_parent(self, name=test)
            item.add_marker(pytest.mark.xdist_group(self.group))
            yield item

    def run(self) -> ScriptRun:
        """Run the script, unless it has been run."""
        runs = self.session.stash.setdefault(RUNS, {})
        if self.group not in runs:
            runs[self.group] = self._run()
        return runs[self.group]

    def _run(self) -> ScriptRun:
        env = vbw_env.load()
        run = ScriptRun(env.out / self.group)
        run.folder.mkdir(parents=True, exist_ok=True)
        image = run.folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(self.scenario.image_mib << 20)
        vm = VM(env, self.scenario.config(image), run.folder)
        try:
            vm.start()
            vm.load(self.scenario.driver, self.scenario.params)
            self._run_script(vm, run)
            if self.scenario.after:
                self.scenario.after(vm, image)
            vm.finish()
        except Exception as error:  # every test of the script has to say why
            run.broken = f"{type(error).__name__}: {error}"
            vm.abandon()
        finally:
            image.unlink(missing_ok=True)
        parts = kernel_log.by_test(vm.kernel_log())
        run.complaints = {
            name: [str(line) for line in kernel_log.bad_lines(lines)]
            for name, lines in parts.items()
        }
        # What no test's mark precedes belongs to whoever comes first, and so
        # does what only the console has heard.
        first = next(iter(self.tests))
        early = run.complaints.pop("", [])
        run.complaints[first] = early + run.complaints.get(first, [])
        if not any(run.complaints.values()):
            run.complaints[first] = kernel_log.bad_console(run.folder / "console.log")
        return run

    def _run_script(self, vm: VM, run: ScriptRun) -> None:
        script = base64.b64encode(self.path.read_bytes()).decode()
        vm.guest(f"echo {script} | base64 -d > /vbw/{self.path.name}")
        words = [f"{key}={shlex.quote(value)}" for key, value in self.scenario.environ.items()]
        command = " ".join(words + ["sh", f"/vbw/{self.path.name}", "/dev/vda"])
        try:
            output = vm.guest.run(command, timeout=self.scenario.timeout, check=False)
        except GuestError as error:
            # What has been reported stands; the problem is that of the test that
            # ran, and of those after it.
            if error.output:
                run.report = ktap.parse(error.output.text)
                run.report.problems.clear()
            raise
        (run.folder / "ktap").write_text(output.text + "\n")
        if output.times:
            with (vm.env.out / FIRST_LINES).open("a") as record:
                record.write(f"{output.times[0] - vm.started_at:.2f}\n")
        run.report = ktap.parse(output.text)
        failed = any(result.outcome == "fail" for result in run.report.results.values())
        passed = any(result.outcome == "pass" for result in run.report.results.values())
        expected = 1 if failed else 0 if passed else 4
        if output.status != expected:
            run.report.problems.append(
                f"exit code {output.status}, but the tests say {expected}")


class GuestItem(pytest.Item):
    """One KTAP line."""

    parent: ScenarioNode

    def runtest(self) -> None:
        run = self.parent.run()
        complaints = run.complaints.get(self.name, [])
        result = run.report.results.get(self.name)
        where = f"\nlogs: {run.folder}"
        if complaints:
            raise ScriptFailed("the guest's kernel complained:\n  "
                               + "\n  ".join(complaints[:20]) + where)
        # What broke after all tests had reported is the last one's.
        if run.broken and (result is None or self.name == self.parent.tests[-1]):
            raise ScriptFailed(run.broken + where)
        if run.report.problems:
            raise ScriptFailed("the script's output: " + "; ".join(run.report.problems) + where)
        if result is None:
            raise ScriptFailed("the script did not report this test" + where)
        if result.outcome == "fail":
            raise ScriptFailed("\n".join(result.notes or ["(it said nothing)"]) + where)
        if result.outcome == "skip":
            pytest.skip(result.reason)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
        if isinstance(excinfo.value, ScriptFailed):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self.parent.name}: {self.name}"

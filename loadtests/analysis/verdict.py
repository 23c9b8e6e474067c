"""What a finished run comes to: thresholds kept or missed, reasons for doubt, and the exit code that says so."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from chat.words import brief, count
from loadtests.analysis.read import Run
from loadtests.analysis.stats import summarise, waited
from loadtests.analysis.trust import Doubt, doubts
from loadtests.errors import ExitCode, HarnessError
from loadtests.scenario.thresholds import Check, Threshold, check

#: Of doubts on the terminal; the headline makes it five.
_MOST_LINES = 4


@dataclass(frozen=True)
class Verdict:
    """Checks and doubts of a run."""

    checks: list[Check]
    doubts: list[Doubt]

    @property
    def is_trusted(self) -> bool:
        """Whether what is left after all that is left out can be believed."""
        return not any(doubt.is_fatal for doubt in self.doubts)

    @property
    def exit_code(self) -> ExitCode:
        """A run that must not be believed has neither kept nor missed a threshold."""
        if not self.is_trusted:
            return ExitCode.NOT_TRUSTWORTHY
        return ExitCode.PASSED if all(one.passed for one in self.checks) else ExitCode.FAILED

    def __str__(self) -> str:
        lines = [str(one) for one in self.checks]
        shown = self.doubts if len(self.doubts) <= _MOST_LINES else self.doubts[: _MOST_LINES - 1]
        lines += [str(doubt) for doubt in shown]
        if left := len(self.doubts) - len(shown):
            lines.append(f"note: {left} more in the report")
        return "\n".join(lines)

    @property
    def headline(self) -> str:
        """What it comes to, in one line."""
        passed = sum(one.passed for one in self.checks)
        kept = f"thresholds kept in {passed} of {count(len(self.checks), 'case')}"
        match self.exit_code:
            case ExitCode.NOT_TRUSTWORTHY:
                reasons = count(sum(one.is_fatal for one in self.doubts), "reason")
                return f"verdict: not trustworthy, for {reasons} (exit code 3)"
            case ExitCode.FAILED:
                return f"verdict: failed, {kept} (exit code 1)"
        return f"verdict: passed, {kept if self.checks else 'no threshold to keep'}"


def judge(run: Run) -> Verdict:
    """The verdict on a run, from its tables and its scenario's thresholds.

    Raises HarnessError: a threshold is none, or of what the summary does not have.
    """
    try:
        thresholds = [Threshold.from_yaml(text) for text in run.manifest.scenario.get("thresholds", ())]
    except ValueError as error:
        raise HarnessError(f"{run.path / 'run.json'}: thresholds: {brief(str(error))}") from None
    labels = {trial.name: trial.variant for trial in run.manifest.trials}
    summary = summarise(run)
    summary["waited"] = waited(run, summary)
    rows = [(labels[str(row["variant"])], dict(row)) for _, row in summary.iterrows()]
    return Verdict(check(thresholds, rows), doubts(run))


def write_junit(verdict: Verdict, name: str, file: Path) -> None:
    """The verdict as JUnit XML, which CI systems show: a test case for each check, and one for trustworthiness."""
    failures = sum(not one.passed for one in verdict.checks)
    tests = str(len(verdict.checks) + 1)
    suite = ET.Element(
        "testsuite", name=name, tests=tests, failures=str(failures), errors=str(int(not verdict.is_trusted))
    )
    for one in verdict.checks:
        case = ET.SubElement(suite, "testcase", classname=one.variant, name=one.threshold)
        if not one.passed:
            ET.SubElement(case, "failure", message=f"measured {one.measured:.6g}")
        if one.note:
            ET.SubElement(case, "system-out").text = one.note
    case = ET.SubElement(suite, "testcase", classname=name, name="the run is trustworthy")
    if not verdict.is_trusted:
        ET.SubElement(case, "error", message="; ".join(one.sentence for one in verdict.doubts if one.is_fatal))
    ET.ElementTree(suite).write(file, encoding="utf-8", xml_declaration=True)

"""`chatlab report RUN`: summary, report and verdict of a run."""

import argparse
from pathlib import Path

from loadtests.analysis.read import open_run
from loadtests.analysis.stats import presentable, summarise
from loadtests.analysis.verdict import judge, write_junit
from loadtests.errors import HarnessError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab report`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")


def main(arguments: argparse.Namespace) -> int:
    """Write them anew; the exit code is the verdict's. Raises HarnessError: there is no such run."""
    return finish(arguments.run)


def finish(run_directory: Path, junit: Path | None = None, *, with_report: bool = True) -> int:
    """Write summary and report, say the verdict; raises HarnessError: there is no such run, or it cannot be read."""
    try:
        run = open_run(run_directory)
    except FileNotFoundError as error:
        raise HarnessError(str(error)) from None
    summary = summarise(run)
    summary.to_csv(run.path / "summary.csv", index=False)
    shown = presentable(summary).drop(columns=[key for key in run.conditions if key != "variant"])
    print(shown.to_string(index=False, float_format="%.1f"))
    if with_report:
        # Imported here: Jupyter takes a second to load.
        from loadtests.analysis.report import write_report

        print(f"report:  {write_report(run.path)}")
    verdict = judge(run)
    if str(verdict):
        print(verdict)
    if junit:
        write_junit(verdict, run.path.name, junit)
    return verdict.exit_code

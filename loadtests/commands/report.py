"""`chatlab report RUN…`: summary, report and verdict of a run, or one page of several."""

import argparse
import math
import sys
from pathlib import Path

import pandas as pd

from chat.words import reason_of
from loadtests.analysis.read import Run, open_run
from loadtests.analysis.stats import SHARES, presentable, summarise
from loadtests.analysis.verdict import judge, write_junit
from loadtests.commands.words import table
from loadtests.errors import HarnessError, complain


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab report`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run directory; several: side by side")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the page of several goes (report.html in this folder)"
    )
    parser.add_argument(
        "--with-disturbed", action="store_true", help="count messages that the machine disturbed in all figures too"
    )


def main(arguments: argparse.Namespace) -> int:
    """Write them anew; the exit code is the verdict's. Raises HarnessError: there is no such run."""
    if len(arguments.runs) > 1:
        return _side_by_side(arguments.runs, arguments.output or Path("report.html"), arguments.with_disturbed)
    if arguments.output:
        raise HarnessError("report --output: of one run the report is in its directory")
    return finish(arguments.runs[0], with_disturbed=arguments.with_disturbed)


def _side_by_side(folders: list[Path], file: Path, with_disturbed: bool) -> int:
    """Write one page of several runs; the exit code is that of the worst."""
    from loadtests.analysis.report import write_side_by_side

    runs = [_opened(folder, with_disturbed) for folder in folders]
    try:
        write_side_by_side(runs, file)
    except OSError as error:
        raise HarnessError(f"{file}: cannot be written: {reason_of(error)}") from error
    print(f"report:  {file}")
    verdicts = [judge(run) for run in runs]
    for run, verdict in zip(runs, verdicts, strict=True):
        print(f"{run.path}: {verdict.headline}")
    return max(verdict.exit_code for verdict in verdicts)


def _opened(folder: Path, with_disturbed: bool) -> Run:
    try:
        return open_run(folder, with_disturbed=with_disturbed)
    except FileNotFoundError as error:
        raise HarnessError(str(error)) from None


#: The columns that are shown, but for percentiles that no variant has enough messages for, and those that are if
#: anything is in them; the rest is in `summary.csv`.
_SHOWN = ("variant", "count", "p50_ms", "p95_ms", "p99_ms", "jitter_ms", "lost", "retransmissions")
_SHOWN_IF_ANY = ("disturbed", "refused", "duplicated", "files", "files_failed")


def shown(summary: pd.DataFrame) -> str:
    """The presentable summary, in as many columns as a terminal has room for."""
    columns = [column for column in _SHOWN if column not in SHARES or summary[column].notna().any()]
    columns += [column for column in _SHOWN_IF_ANY if column in summary and summary[column].any()]
    rows = [
        [
            str(value) if column == "variant" else _ms(value, column) if column.endswith("_ms") else f"{value}"
            for value in summary[column]
        ]
        for column in columns
    ]
    return table(columns, [*zip(*rows, strict=True)], left=("variant",))


def _ms(value: float, column: str) -> str:
    if math.isnan(value):
        return "too few" if column in SHARES else "–"
    return f"{value:.1f}"


def finish(
    run_directory: Path, junit: Path | None = None, *, with_report: bool = True, with_disturbed: bool = False
) -> int:
    """Write summary and report, say the verdict, also of a run that is only to be read.

    Raises HarnessError: there is no such run, or it cannot be read.
    """
    run = _opened(run_directory, with_disturbed)
    summary = summarise(run)
    print(shown(presentable(run, summary)))
    report = None
    try:
        summary.to_csv(run.path / "summary.csv", index=False)
        if with_report:
            # Imported here: what draws figures takes a second to load.
            from loadtests.analysis.report import write_report

            report = write_report(run.path, with_disturbed=with_disturbed)
    except OSError as error:
        sys.stdout.flush()  # so that it stands below the table
        complain(
            f"{error.filename or run.path}: cannot be written: {reason_of(error)}; the verdict is told all the same"
        )
    if report:  # told outside of the above: whoever stops reading is no disk that cannot be written
        print(f"report:  {report}")
    verdict = judge(run)
    if str(verdict):
        print(verdict)
    print(verdict.headline)
    if junit:
        write_junit(verdict, run.path.name, junit)
    return verdict.exit_code

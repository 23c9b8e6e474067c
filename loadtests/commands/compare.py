"""`chatlab compare RUN [RUN]`: is there a difference, and does it matter?"""

import argparse
import sys
from pathlib import Path

from loadtests.analysis import comparison_text
from loadtests.analysis.compare import Comparison, compare_runs, compare_within
from loadtests.analysis.guard import Guard, broken
from loadtests.analysis.read import Run, open_run
from loadtests.analysis.trust import doubts
from loadtests.commands.output import check_writable
from loadtests.errors import ExitCode, HarnessError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab compare`."""
    parser.description = (
        "Compare two runs variant by variant, or the values of a varied key within one run. The unit is the trial: it "
        "takes four of each, or six pairs."
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run directory, or two: before, after")
    parser.add_argument("--by", metavar="KEY", help="of one run: the varied key whose values are compared")
    parser.add_argument(
        "--margin", type=_share, default=0.05, metavar="N%", help="changes below this do not matter (5%%)"
    )
    parser.add_argument(
        "--fail-if",
        dest="guards",
        action="append",
        default=[],
        metavar="'p99 > +10%'",
        help="exit with 1 if a change is beyond this and not by chance; may be repeated",
    )
    parser.add_argument(
        "--with-disturbed", action="store_true", help="count the messages that the machine disturbed as well"
    )
    parser.add_argument("--force", action="store_true", help="compare runs that must not be believed, too")
    parser.add_argument(
        "--machine",
        action="store_true",
        help="REAL VIRTUAL: how much of each percentile was the network, and how much the machine",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print a table for a pull request")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with figures and link tables too")


def main(arguments: argparse.Namespace) -> int:
    """Print the comparison; raises HarnessError: it cannot be made of these runs."""
    guards = [Guard.parse(text) for text in arguments.guards]
    if arguments.html:
        check_writable(arguments.html)
    try:
        runs = [open_run(path, with_disturbed=arguments.with_disturbed or None) for path in arguments.runs]
    except FileNotFoundError as error:
        raise HarnessError(str(error)) from None
    if not arguments.force:
        _refuse_doubtful(runs)
    if arguments.machine:
        return _machine(runs, arguments)
    comparisons = _compared(runs, arguments.by, arguments.margin)
    if arguments.json:
        print(comparison_text.as_json(comparisons))
    elif arguments.markdown:
        print(comparison_text.as_markdown(comparisons, arguments.margin))
    else:
        print(comparison_text.as_text(comparisons, arguments.margin))
    if arguments.html:
        from loadtests.analysis.comparison_page import write_page  # figures take a second to import

        write_page(arguments.html, runs, comparisons, arguments.margin)
    failures = broken(guards, comparisons)
    for sentence in failures:
        print(sentence)
    return ExitCode.FAILED if failures else ExitCode.PASSED


def _machine(runs: list[Run], arguments: argparse.Namespace) -> int:
    """What the network and the machine took of a real run, by a virtual one of the same scenario."""
    from loadtests.analysis import machine_page
    from loadtests.analysis.machine_share import machine_shares

    if len(runs) != 2 or arguments.by or arguments.guards:
        raise HarnessError("compare --machine: give two runs, REAL VIRTUAL, without --by and --fail-if")
    shares = machine_shares(*runs)
    if arguments.json:
        print(machine_page.as_json(shares))
    elif arguments.markdown:
        print(machine_page.as_markdown(shares))
    else:
        print(machine_page.as_text(shares))
    if arguments.html:
        machine_page.write_page(arguments.html, f"Network or machine: {runs[0].path.resolve().name}", shares)
    return ExitCode.PASSED


def _compared(runs: list[Run], key: str | None, margin: float) -> list[Comparison]:
    if len(runs) == 1 and key:
        return compare_within(runs[0], key, margin)
    if len(runs) == 2 and not key:
        if runs[0].manifest.clock != runs[1].manifest.clock:
            raise HarnessError(
                "compare: one run is in real time, one in virtual time, where computing takes no time; "
                "--machine shows what that leaves"
            )
        comparisons = compare_runs(runs[0], runs[1], margin)
        named = dict.fromkeys(name for run in runs for name in run.trials["variant"].cat.categories)
        if left_out := [name for name in named if name not in {one.name for one in comparisons}]:
            print(f"note: not compared, as one of the runs has not measured it: {', '.join(left_out)}", file=sys.stderr)
        return comparisons
    raise HarnessError("compare: give two runs, or one run and --by KEY")


def _refuse_doubtful(runs: list[Run]) -> None:
    for run in runs:
        if found := [doubt.sentence for doubt in doubts(run) if doubt.is_fatal]:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise HarnessError(f"{run.path} is not to be trusted: {found[0]}{more}; --force compares it all the same")


def _share(text: str) -> float:
    number = text.removesuffix("%")
    try:
        share = float(number) / 100
    except ValueError:
        share = -1.0
    if number == text or not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"expected a percentage between 0% and 100%, such as 5%; got {text!r}")
    return share

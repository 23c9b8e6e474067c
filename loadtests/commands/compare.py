"""`chatlab compare RUN [RUN]`: is there a difference?"""

import argparse
from pathlib import Path

from loadtests.analysis.compare import compare_runs, compare_within
from loadtests.analysis.read import open_run
from loadtests.errors import ExitCode, HarnessError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab compare`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="one run directory, or two")
    parser.add_argument("--by", metavar="KEY", help="of one run: the varied key whose values are compared")


def main(arguments: argparse.Namespace) -> int:
    """Print the comparison; raises HarnessError: it cannot be made of these runs."""
    try:
        runs = [open_run(path) for path in arguments.runs]
        if len(runs) == 1 and arguments.by:
            table = compare_within(runs[0], arguments.by)
        elif len(runs) == 2 and not arguments.by:
            table = compare_runs(*runs)
        else:
            raise HarnessError("compare: give two runs, or one run and --by KEY")
    except (FileNotFoundError, ValueError) as error:
        raise HarnessError(str(error)) from None
    print(table.to_string(index=False, float_format="%.3g"))
    return ExitCode.PASSED

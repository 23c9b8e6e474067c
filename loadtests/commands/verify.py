"""`chatlab verify RUN`: repeats a run in virtual time; its tables must be the same to the last byte."""

import argparse
import os
from pathlib import Path

from chat.arguments import at_least_1
from loadtests.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab verify`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory of a virtual run")
    jobs = os.cpu_count() or 1
    parser.add_argument("--jobs", type=at_least_1, default=jobs, metavar="N", help="trials at once (one a core)")


def main(arguments: argparse.Namespace) -> int:
    """Exit code 0 if all tables are equal, 1 if not; raises HarnessError: the run was not virtual, or failed."""
    from loadtests.clock.verify import verify

    differences = verify(arguments.run, arguments.jobs)
    for line in differences:
        print(line)
    if not differences:
        print("equal: every row of every table")
    return ExitCode.FAILED if differences else ExitCode.PASSED

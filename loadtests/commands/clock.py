"""`chatlab clock build` and `chatlab clock check`."""

import argparse

from loadtests.clock import checkup, kernel
from loadtests.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab clock`."""
    parser.add_argument(
        "step", choices=["build", "check"], help="build its kernel, once; or measure a link twice and compare"
    )


def main(arguments: argparse.Namespace) -> int:
    """Build or check; raises HarnessError: it does not work here, with the reason."""
    if arguments.step == "build":
        print(kernel.PLAN)
        print(f"kernel: {kernel.build()}")
    else:
        print(checkup.check())
    return ExitCode.PASSED

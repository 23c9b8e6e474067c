"""`chatlab locustfile`: where plain Locust finds it."""

import argparse

from loadtests.data import LOCUSTFILE
from loadtests.errors import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab locustfile`: none, but it says what to do with the answer."""
    parser.description = 'Print the path of the locustfile, as in: locust -f "$(chatlab locustfile)" --scenario demo'


def main(_arguments: argparse.Namespace) -> int:
    """Print the path."""
    print(LOCUSTFILE)
    return ExitCode.PASSED

"""`chatlab message RUN USER:ID`: the way of one message, packet by packet, from a trial's capture."""

import argparse
import re
from pathlib import Path

from chat.arguments import at_least_1
from loadtests.errors import ExitCode, HarnessError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab message`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory with packet captures (run --capture)")
    parser.add_argument("message", metavar="USER:ID", type=message_of, help="as in messages.csv: columns user and id")
    parser.add_argument("--trial", type=at_least_1, metavar="N", help="its trial (the run's only one)")


def message_of(text: str) -> tuple[int, int]:
    """`3:127` → user 3's message 127."""
    if not re.fullmatch(r"\d+:\d+", text):
        raise argparse.ArgumentTypeError(f"expected USER:ID, as in 3:127, got {text!r}")
    user, _, number = text.partition(":")
    return int(user), int(number)


def main(arguments: argparse.Namespace) -> int:
    """Print the way and draw it; raises HarnessError: there is no such message, or no capture."""
    from loadtests.journey.explain import explain
    from loadtests.run.manifest import Manifest

    trials = [trial.number for trial in Manifest.read(arguments.run).trials]
    if not trials:
        raise HarnessError(f"{arguments.run}: no trial was run")
    trial = arguments.trial or trials[0]
    if trial not in trials or (arguments.trial is None and len(trials) > 1):
        raise HarnessError(f"{arguments.run}: give --trial N, one of: {', '.join(map(str, trials))}")
    print(explain(arguments.run, trial, *arguments.message))
    return ExitCode.PASSED

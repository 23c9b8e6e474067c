"""`chatlab init NAME`: a scenario of one's own to begin with."""

import argparse
import re
from pathlib import Path

from chat.words import reason_of
from loadtests.errors import ExitCode, HarnessError

_TEMPLATE = """\
# chatlab check {name}.yaml    says what would run
# chatlab run {name}.yaml      runs it, and writes results/<utc>-{name}/
description: {name}

# The network between clients and server: one of `chatlab profiles`, the path of a file, or a block such as
# {{rtt: 80ms, jitter: 5ms, loss: 1%, up: {{rate: 5mbit}}, down: {{rate: 20mbit}}}}
link: lossy-wifi

# single; standby: a second connection takes over when the first fails; redundant: everything over both.
connections: single

# BroadcastUser talks to everyone, PrivateUser to one at a time, ListeningUser only listens, FileUser sends files.
users: {{BroadcastUser: 10}}

# Of each user. Messages are due at fixed times, however slow the answers are (an open workload).
messages: {{rate: 1/s, arrival: poisson, size: 120B}}

# How many users there are, and for how long; statistics leave out the warm-up.
stages: [{{users: 10, duration: 12s}}]
warmup: 2s

# Each combination of these values is a variant; any key can be varied, as in messages.rate: [1/s, 5/s].
vary:
  connections: [single, redundant]

# How often each variant runs. Intervals and comparisons need several.
repetitions: 3
seed: 1

# What each variant must keep; a missed one makes exit code 1.
thresholds: ["lost == 0"]
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab init`."""
    parser.description = "Write a commented scenario, NAME.yaml, to begin with; no file is overwritten."
    parser.add_argument("name", metavar="NAME", help="what it is called; may lead through folders")


def main(arguments: argparse.Namespace) -> int:
    """Write the file; raises HarnessError: there is one already, or it cannot be written."""
    path = Path(arguments.name.removesuffix(".yaml") + ".yaml")
    if not re.fullmatch(r"[\w-][\w.-]*", path.stem):
        raise HarnessError(f"init: {path.stem!r} is no good name: use letters, digits, dots, dashes and underscores")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(_TEMPLATE.format(name=path.stem))
    except FileExistsError:
        raise HarnessError(f"init: {path} exists already") from None
    except OSError as error:
        raise HarnessError(f"init: {path} cannot be written: {reason_of(error)}") from error
    print(f"{path}: edit it, then `chatlab check {path}` and `chatlab run {path}`")
    return ExitCode.PASSED

"""What can go wrong, and with which exit code the command ends.

- :exc:`HarnessError`: base; one sentence for the user, exit code 2
    - :exc:`ConfigError`: a file or option says something that is not allowed; names file, line and key
    - :exc:`LinkError`: the impaired link cannot be built here; names what is missing and what to do
"""

import sys
from enum import IntEnum

from chat.words import visible


class ExitCode(IntEnum):
    """The exit codes of `chatlab`, also the meaning of a run's verdict."""

    PASSED = 0
    #: A threshold of the scenario was missed.
    FAILED = 1
    #: Bad usage, bad input, or the harness itself failed.
    ERROR = 2
    #: The run finished, but its numbers must not be believed.
    NOT_TRUSTWORTHY = 3


class HarnessError(Exception):
    """One clear sentence for the user."""


class ConfigError(HarnessError):
    """A scenario, a link profile or an option is wrong: the sentence names file, line, key and what is allowed."""


class LinkError(HarnessError):
    """The link cannot be built on this machine, or it broke: the sentence names the reason and the remedy."""


def complain(sentence: str) -> ExitCode:
    """Say it on standard error, where nothing that it quotes can act on a terminal; returns the exit code for that."""
    print("chatlab:", "\n".join(map(visible, sentence.splitlines())), file=sys.stderr)
    return ExitCode.ERROR

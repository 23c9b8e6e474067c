"""The command `chatlab`: which commands there are, and what becomes of their errors."""

import argparse
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence

from chat import arguments as options
from loadtests.errors import HarnessError, complain

#: Command → its module, and what it does. A module is imported only when its command is used: pandas alone takes a
#: second to load.
COMMANDS = {
    "run": ("loadtests.commands.run", "run a scenario, write its results and its report"),
    "check": ("loadtests.commands.check", "say what a scenario would run, how long and how much; start nothing"),
    "init": ("loadtests.commands.init", "write a commented scenario of your own"),
    "doctor": ("loadtests.commands.doctor", "say what works on this machine, and what mends the rest"),
    "link": ("loadtests.link.command", "run any command behind an impaired link"),
    "try": ("loadtests.link.tryout", "chat behind a link, in this terminal, with some robots"),
    "compare": ("loadtests.commands.compare", "compare two runs, or two variants of one, trial by trial"),
    "profiles": ("loadtests.commands.profiles", "list the links that come with chatlab"),
    "clock": ("loadtests.commands.clock", "make virtual time ready, for runs that no busy machine can disturb"),
    "verify": ("loadtests.commands.verify", "repeat a run in virtual time and compare every row"),
    "message": ("loadtests.commands.message", "explain one message of a captured run, packet by packet"),
    "report": ("loadtests.commands.report", "write report.html and summary.csv of a run anew"),
    "notebooks": ("loadtests.commands.notebooks", "open the notebooks in JupyterLab, on the newest run"),
    "locustfile": ("loadtests.commands.locustfile", "print the path of the locustfile, for plain Locust"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (see `loadtests.errors.ExitCode`)."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        arguments = _parser(given).parse_args(given)
        code: int = arguments.action(arguments)
        sys.stdout.flush()
    except HarnessError as error:
        return complain(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("chat", "loadtests"):
            raise
        return complain(f"{error.name} is not installed, which this command needs: pip install 'chatlab[load]'")
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return 128 + signal.SIGPIPE
    return code


def _nobody_reads() -> bool:
    """Whether whoever read our output has gone, as `head` does; then what is left of it goes nowhere."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = options.parser(
        "chatlab",
        "A chat whose network you can break on purpose, and a harness that tells what that cost.",
        epilog="Exit codes: 0 passed, 1 threshold missed, 2 usage or harness error, 3 not trustworthy.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    completing = "_ARGCOMPLETE" in os.environ
    words = os.environ.get("COMP_LINE", "").split()[1:] if completing else given
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:
            implementation = importlib.import_module(module)
            implementation.add_arguments(command)
            command.set_defaults(action=implementation.main)
    if completing:
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser

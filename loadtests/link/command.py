"""`chatlab link PROFILE -- COMMAND…`: any command behind any link."""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

from loadtests.errors import ExitCode, HarnessError, LinkError
from loadtests.link.calibrate import LinkRow
from loadtests.link.lab import BACKENDS, Lab, open_lab
from loadtests.link.laboratory import run_in_lab
from loadtests.link.linkfile import known_links, load_profile
from loadtests.link.namespaces import Namespace
from loadtests.link.profile import PATHS, LinkProfile

#: How often the link is looked at while the command runs.
_CHECK_S = 1.0

DESCRIPTION = """Run COMMAND behind the link PROFILE, in a private network namespace that is gone afterwards.
In both commands {server} stands for the server's address, {secondary} for its address on the second path."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab link`."""
    parser.description = DESCRIPTION
    parser.add_argument("profile", metavar="PROFILE", help="a name in scenarios/links/, or the path of such a file")
    parser.add_argument("--serve", metavar="COMMAND", type=shlex.split, help="run this on the other side first")
    parser.add_argument(
        "--backend", choices=("auto", *BACKENDS), default="auto", help="what makes the link (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the emulator's randomness (%(default)s)")
    parser.add_argument("--calibrate", action="store_true", help="first measure the link and print what was found")
    command = parser.add_argument("command", metavar="COMMAND", nargs="+", help="what to run, after --")
    command.required = False  # "*" would be satisfied by nothing as soon as an option stands between PROFILE and --


def main(arguments: argparse.Namespace) -> int:
    """Run the command; the exit code is its own.

    Raises HarnessError: the profile is wrong, or the link cannot be built.
    """
    if arguments.command is None and not arguments.calibrate:
        raise HarnessError("nothing to run behind the link: say -- COMMAND, or --calibrate")
    profile = load_profile(arguments.profile)
    return run_in_lab(lambda: _run(arguments, profile))


def _run(arguments: argparse.Namespace, profile: LinkProfile) -> int:
    with open_lab(dict.fromkeys(PATHS, profile), arguments.backend, arguments.seed) as lab:
        print(f"link: {profile}, by {lab.backend}", file=sys.stderr, flush=True)
        trusted = True
        if arguments.calibrate:
            rows = lab.calibrate()
            print(table(rows), flush=True)
            trusted = all(row.within for row in rows)
        if arguments.command is None:
            return ExitCode.PASSED if trusted else ExitCode.NOT_TRUSTWORTHY
        lab.start()
        with served(lab, arguments.serve):
            return run_in_foreground(lab, arguments.command)


def profiles() -> str:
    """The links of `scenarios/links/` for reading: a line each."""
    width = max(map(len, known_links()))
    return "\n".join(f"{name:{width}}  {_summary(load_profile(name))}" for name in known_links())


def _summary(link: LinkProfile) -> str:
    ways = (link.up, link.down)
    rates = "/".join(f"{way.rate_bps / 1e6:g}" if way.rate_bps else "∞" for way in ways)
    losses = "/".join(f"{way.loss_ratio:.2%}" for way in ways)
    return f"{link.rtt_s * 1e3:6g} ms  {rates:>10} Mbit/s up/down  loss {losses:13}  {link.description}"


def table(rows: Sequence[LinkRow]) -> str:
    """The calibration for reading: one line per figure."""
    lines = [f"{'path':10}{'direction':11}{'figure':17}{'requested':>10}{'measured':>10}{'allowed':>20}"]
    for row in rows:
        allowed, mark = f"{row.low:.4g} to {row.high:.4g}", "" if row.within else "  off"
        figures = f"{row.requested:10.4g}{row.measured:10.4g}{allowed:>20}{mark}"
        lines.append(f"{row.path:10}{row.direction:11}{row.metric:17}{figures}")
    return "\n".join(lines)


def _with_addresses(command: Sequence[str], lab: Lab) -> list[str]:
    """`{server}` and `{secondary}` replaced; any other brace belongs to the command."""
    primary, secondary = (lab.addresses[path] for path in PATHS)
    return [word.replace("{server}", primary).replace("{secondary}", secondary) for word in command]


@contextlib.contextmanager
def served(lab: Lab, command: Sequence[str] | None) -> Iterator[None]:
    """Meanwhile the command runs on the server's side."""
    if command is None:
        yield
        return
    server = _start(lab.server, _with_addresses(command, lab), process_group=0)
    try:
        yield
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)


def run_in_foreground(lab: Lab, command: Sequence[str]) -> int:
    """The command's exit code; Ctrl-C is for the command, and what it makes of it is the result.

    Raises LinkError: the link broke meanwhile.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        running = _start(lab.client, _with_addresses(command, lab))
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = running.wait(timeout=_CHECK_S)
                return code if code >= 0 else 128 - code
            lab.check()
    finally:
        signal.signal(signal.SIGINT, before)


def _start(namespace: Namespace, command: Sequence[str], **options: int) -> "subprocess.Popen[bytes]":
    try:
        return namespace.popen(command, **options)
    except OSError as error:
        raise LinkError(f"{command[0]}: {error.strerror}") from error

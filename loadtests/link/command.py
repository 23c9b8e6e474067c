"""`chatlab link PROFILE -- COMMAND…`: any command behind any link."""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from chat import arguments as options
from loadtests.errors import ExitCode, HarnessError, LinkError
from loadtests.link.backends.interface import open_interface
from loadtests.link.backends.links import Links
from loadtests.link.lab import BACKENDS, Lab, open_lab
from loadtests.link.linkfile import load_profile
from loadtests.link.measure.calibrate import LinkRow, calibration_s
from loadtests.link.model.profile import PATHS, LinkProfile
from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.stalls.intervals import Interval
from loadtests.stalls.meter import StallMeter

#: How often the link is looked at while the command runs.
_CHECK_S = 1.0
#: How long to wait for the command on the server's side to listen.
_LISTEN_S = 5.0

DESCRIPTION = """Run COMMAND behind the link PROFILE, in a private network namespace that is gone afterwards.
In both commands {server} stands for the server's address, {secondary} for its address on the second path."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab link`."""
    parser.description = DESCRIPTION
    parser.add_argument("profile", metavar="PROFILE", help="a name in scenarios/links/, or the path of such a file")
    parser.add_argument("--serve", metavar="COMMAND", type=_words, help="run this on the other side first")
    parser.add_argument(
        "--backend", choices=("auto", *BACKENDS), default="auto", help="what makes the link (%(default)s)"
    )
    parser.add_argument("--interface", metavar="NAME", help="put the link on this interface, which leads to --to")
    parser.add_argument(
        "--to", metavar="HOST:PORT", type=options.host_port, help="the server that COMMAND talks to there"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the emulator's randomness (%(default)s)")
    parser.add_argument("--calibrate", action="store_true", help="first measure the link and print what was found")
    command = parser.add_argument("command", metavar="COMMAND", nargs="+", help="what to run, after --")
    command.required = False  # "*" would be satisfied by nothing as soon as an option stands between PROFILE and --


def _words(text: str) -> list[str]:
    """The words of a command, as a shell takes them."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation mark or a backslash without its other half
        words = []
    if not words:
        raise argparse.ArgumentTypeError(f"expected a command such as 'iperf3 -s', got {text!r}")
    return words


def main(arguments: argparse.Namespace) -> int:
    """Run the command; the exit code is its own.

    Raises HarnessError: the profile is wrong, or the link cannot be built.
    """
    if arguments.command is None and not arguments.calibrate:
        raise HarnessError("nothing to run behind the link: give -- COMMAND, or --calibrate")
    profile = load_profile(arguments.profile)
    if (arguments.interface is None) != (arguments.to is None) or (arguments.to and arguments.serve):
        raise HarnessError("--interface NAME and --to HOST:PORT go together, and without --serve: the server is there")
    # Outside of the laboratory, from where all of the machine is seen.
    with StallMeter() if arguments.calibrate else contextlib.nullcontext() as meter:
        if arguments.interface:
            return _run_through_interface(arguments, profile, meter)
        return run_in_lab(lambda: _run(arguments, profile, meter))


def _run(arguments: argparse.Namespace, profile: LinkProfile, meter: StallMeter | None) -> int:
    with open_lab(dict.fromkeys(PATHS, profile), arguments.backend, arguments.seed) as lab:
        trusted = _shown(lab, meter)
        if arguments.command is None:
            return ExitCode.PASSED if trusted else ExitCode.NOT_TRUSTWORTHY
        lab.start()
        with served(lab, arguments.serve):
            return run_in_foreground(lab, arguments.command)


def _run_through_interface(arguments: argparse.Namespace, profile: LinkProfile, meter: StallMeter | None) -> int:
    host, port = arguments.to
    with open_interface(arguments.interface, host, port, profile) as links:
        trusted = _shown(links, meter)
        if arguments.command is None:
            return ExitCode.PASSED if trusted else ExitCode.NOT_TRUSTWORTHY
        links.start()
        return _in_foreground(links, lambda: _start(subprocess.Popen, arguments.command))


def _shown(links: Links, meter: StallMeter | None) -> bool:
    """Say what the link is, and whether measuring it beside this meter, if there is one, finds the same."""
    print(f"link: {'; '.join(map(str, dict.fromkeys(links.links.values())))}, by {links.backend}", file=sys.stderr)
    if meter is None:
        return True
    print(f"measuring it takes about {calibration_s(links.links):.0f} s", file=sys.stderr)

    def disturbances() -> list[Interval]:
        late = [Interval(one.begin_ns, one.end_ns) for one in links.late()]
        if meter.is_realtime:  # otherwise our own processes delay it too
            late += [Interval(one.begin_ns, one.end_ns) for one in meter.stalls()]
        return late

    rows = links.calibrate(disturbances)
    print(table(rows), flush=True)
    return all(row.within for row in rows)


def table(rows: Sequence[LinkRow]) -> str:
    """The calibration for reading: one line per figure."""
    lines = [f"{'path':10}{'direction':11}{'figure':17}{'requested':>10}{'measured':>10}{'allowed':>24}"]
    for row in rows:
        allowed = f"{row.low:.4g} to {row.high:.4g}"
        mark = "" if row.within else "  off, while the machine stalled" if row.disturbed else "  off"
        figures = f"{row.requested:10.4g}{row.measured:10.4g}{allowed:>24}{mark}"
        lines.append(f"{row.path:10}{row.direction:11}{row.metric:17}{figures}")
    return "\n".join(lines)


def _with_addresses(command: Sequence[str], lab: Lab) -> list[str]:
    """`{server}` and `{secondary}` replaced; any other brace belongs to the command."""
    primary, secondary = (lab.addresses[path] for path in PATHS)
    return [word.replace("{server}", primary).replace("{secondary}", secondary) for word in command]


@contextlib.contextmanager
def served(lab: Lab, command: Sequence[str] | None) -> Iterator[None]:
    """Meanwhile the command runs on the server's side; it listens, unless it takes too long over it.

    Raises LinkError: it has ended.
    """
    if command is None:
        yield
        return
    server = _start(lab.server.popen, _with_addresses(command, lab), process_group=0)
    try:
        _await_listening(lab, server, command[0])
        yield
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)


def _await_listening(lab: Lab, server: "subprocess.Popen[bytes]", name: str) -> None:
    deadline_s = time.monotonic() + _LISTEN_S
    while not lab.server.listens():
        if server.poll() is not None:
            raise LinkError(f"{name} ended with exit code {server.returncode} before it listened on a port")
        if time.monotonic() > deadline_s:
            print(f"chatlab: {name} listens on no port yet; going on without", file=sys.stderr)
            return
        time.sleep(0.02)


def run_in_foreground(lab: Lab, command: Sequence[str]) -> int:
    """The command's exit code; Ctrl-C is for the command, and what it makes of it is the result.

    Raises LinkError: the link broke meanwhile.
    """
    return _in_foreground(lab, lambda: _start(lab.client.popen, _with_addresses(command, lab)))


def _in_foreground(links: Links, start: Callable[[], "subprocess.Popen[bytes]"]) -> int:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        running = start()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = running.wait(timeout=_CHECK_S)
                return code if code >= 0 else 128 - code
            links.check()
    finally:
        signal.signal(signal.SIGINT, before)


def _start(
    popen: Callable[..., "subprocess.Popen[bytes]"], command: Sequence[str], **options: int
) -> "subprocess.Popen[bytes]":
    try:
        return popen(command, **options)
    except OSError as error:
        raise LinkError(f"{command[0]}: {error.strerror}") from error

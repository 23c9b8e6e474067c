"""`chatlab try PROFILE`: a server, a link, robots that chat behind it, and the interactive client in this terminal."""

import argparse
import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterator

from loadtests.link.command import run_in_foreground, served
from loadtests.link.lab import BACKENDS, Lab, open_lab
from loadtests.link.linkfile import load_profile
from loadtests.link.model.profile import PATHS, LinkProfile
from loadtests.link.sandbox.laboratory import run_in_lab
from loadtests.link.sandbox.topology import ALL_ADDRESSES

_PORT = 5000
_ROBOTS = ("ada", "bob", "cyd")
_SENTENCES = ("anybody here?", "it feels slow today", "I am on a train", "lunch?", "did you get that?", "brb")
#: How long a robot thinks on average.
_THINKS_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `chatlab try`."""
    parser.add_argument("profile", metavar="PROFILE", help="a name in scenarios/links/, or the path of such a file")
    parser.add_argument("--nick", default="guest", help="what you want to be called (%(default)s)")
    parser.add_argument("--mode", choices=("single", "standby", "redundant"), default="single", help="(%(default)s)")
    parser.add_argument("--backend", choices=("auto", *BACKENDS), default="auto", help="(%(default)s)")


def main(arguments: argparse.Namespace) -> int:
    """Chat until the client ends; raises HarnessError: the profile is wrong, or the link cannot be built."""
    profile = load_profile(arguments.profile)
    return run_in_lab(lambda: _chat(arguments, profile))


def _chat(arguments: argparse.Namespace, profile: LinkProfile) -> int:
    server = [sys.executable, "-m", "chat", "serve", "--host", ALL_ADDRESSES, "--port", str(_PORT)]
    with open_lab(dict.fromkeys(PATHS, profile), arguments.backend) as lab, served(lab, server):
        print(f"link: {profile}, by {lab.backend}; /exit ends", file=sys.stderr, flush=True)
        lab.start()
        with _robots(lab):
            return run_in_foreground(lab, [*_client(lab, arguments.nick), *_second(lab, arguments.mode)])


def _client(lab: Lab, nick: str) -> list[str]:
    return [sys.executable, "-m", "chat", "connect", nick, "--host", lab.addresses["primary"], "--port", str(_PORT)]


def _second(lab: Lab, mode: str) -> list[str]:
    return [] if mode == "single" else ["--mode", mode, "--secondary", f"{lab.addresses['secondary']}:{_PORT}"]


@contextlib.contextmanager
def _robots(lab: Lab) -> Iterator[None]:
    """Meanwhile some clients say something now and then, behind the same link."""
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True}
    robots = [lab.client.popen(_client(lab, nick), process_group=0, **quiet) for nick in _ROBOTS]
    ended = threading.Event()
    voices = [threading.Thread(target=_talk, args=(robot, ended, number)) for number, robot in enumerate(robots)]
    for voice in voices:
        voice.start()
    try:
        yield
    finally:
        ended.set()
        for robot, voice in zip(robots, voices, strict=True):
            voice.join()
            robot.kill()
            robot.communicate()


def _talk(robot: "subprocess.Popen[str]", ended: threading.Event, seed: int) -> None:
    assert robot.stdin is not None, "a pipe was asked for"
    chance = random.Random(seed)
    with contextlib.suppress(OSError):  # it could not connect, or was thrown out: one voice less
        while not ended.wait(chance.expovariate(1 / _THINKS_S)):
            robot.stdin.write(f"{chance.choice(_SENTENCES)}\n")
            robot.stdin.flush()

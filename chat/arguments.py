"""What the options of all three commands have in common."""

import argparse
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
#: Of a password; a longer first line is some other file.
MAX_PASSWORD_CHARS = 1024
#: Thirty years: a time that nobody means to wait for, and that a clock can still count.
LONGEST_S = 1e9


def port(text: str) -> int:
    """The type of an option: a TCP port, 0 included."""
    if text.isascii() and text.isdecimal() and int(text) < 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {text!r}")


def at_least_1(text: str) -> int:
    """The type of an option: how many, of what there must be one."""
    if text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 31:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1 up, got {text!r}")


def host_port(text: str) -> tuple[str, int]:
    """The type of an option: see :func:`parse_host_port`."""
    try:
        return parse_host_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_host_port(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, an IPv6 address in brackets or not.

    Raises:
        ValueError: it is something else.
    """
    host, _, number = text.rpartition(":")
    if host and number.isascii() and number.isdecimal() and 0 < int(number) < 65_536:
        return host.strip("[]"), int(number)
    raise ValueError(f"expected HOST:PORT, with a port from 1 to 65535, got {text!r}")


def seconds(text: str) -> float:
    """The type of an option: a time from 0 up."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= LONGEST_S:
        return value
    raise argparse.ArgumentTypeError(f"expected a number of seconds from 0 to {LONGEST_S:g}, got {text!r}")


def file(text: str) -> str:
    """The type of an option: a file's name. An empty one, as of a variable that is not set, is no way to do without."""
    if text:
        return text
    raise argparse.ArgumentTypeError("expected the name of a file, got ''")


def add_password_file(parser: argparse.ArgumentParser, what_for: str) -> None:
    """The option of both ends that names a file; its first line, a password, becomes `password`, None without."""
    parser.add_argument("--password-file", metavar="FILE", dest="password", type=_password, help=what_for)


def _password(text: str) -> str:
    try:
        with open(file(text), encoding="utf-8-sig") as opened:  # some editors write a mark before the first letter
            line = opened.readline(MAX_PASSWORD_CHARS + 2).rstrip("\r\n")
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"{text} is not text in UTF-8") from None
    if 0 < len(line) <= MAX_PASSWORD_CHARS:
        return line
    raise argparse.ArgumentTypeError(f"the first line of {text} must have 1 to {MAX_PASSWORD_CHARS} characters")


def revision() -> str | None:
    """The commit that this is: as noted when the package was built, or of the clone it stands in."""
    noted = _HERE / "revision.txt"
    if noted.exists():
        return noted.read_text().strip()
    if not (_HERE.parent / ".git").exists():
        return None
    command = ["git", "-C", str(_HERE.parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Version(argparse.Action):
    """`--version`: prints program, version and commit, and ends; nothing of that is looked up before."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show version and commit, and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """The option was given."""
        commit = revision()
        print(f"{parser.prog} {version('chatlab')}{f' (git {commit})' if commit else ''}")
        parser.exit()


def parser(program: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """A parser with what every command has."""
    made = argparse.ArgumentParser(prog=program, description=description, **options)
    made.add_argument("--version", action=Version)
    return made

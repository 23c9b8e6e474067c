"""The command `chat-client`: its options, and which driver the console gets."""

import argparse
import contextlib
import math
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from chat import arguments, records
from chat.client.client import RETRY_S, Mode
from chat.client.transcript import Transcript
from chat.console.console import DOWNLOADS, Console
from chat.console.pipe import Pipe
from chat.net.loop import Loop
from chat.protocol.errors import FileError, NotText, TlsError
from chat.records import private
from chat.words import reason_of, visible

if TYPE_CHECKING:
    from chat.console.terminal import Terminal


def main() -> int:
    """The command `chat-client`; returns its exit code."""
    options = _parser().parse_args()
    try:
        return _chat(options)
    except FileError as error:
        return _complain(str(error))
    except BrokenPipeError:  # nobody reads what we show: as if the signal had ended us, as it does other programs
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _chat(options: argparse.Namespace) -> int:
    mode: Mode = options.mode or ("redundant" if options.secondary else "single")
    with contextlib.ExitStack() as stack:
        transcript = None
        if options.record is not None:
            try:
                file = _open(options.record)
                stack.callback(records.close, file)
                transcript = Transcript(file)
            except OSError as error:
                return _complain(f"Cannot write {options.record}: {reason_of(error)}.")
        if options.history is not None:
            try:
                open(options.history, "a", opener=private).close()  # now rather than at the first line
            except OSError as error:
                return _complain(f"Cannot write {options.history}: {reason_of(error)}.")
        tls = None
        if options.tls or options.ca:
            from chat.net.tls import client_context

            try:
                tls = client_context(options.ca)
            except TlsError as error:
                return _complain(str(error))
        loop = Loop()
        stack.callback(loop.close)
        driver = _driver(loop, options, stack)
        primary = (options.host, options.port)
        try:
            console = Console(
                loop,
                options.nick,
                primary,
                options.secondary,
                mode,
                show=driver.show,
                transcript=transcript,
                downloads=options.downloads,
                # A person decides how long to wait; a script cannot.
                retry_s=RETRY_S if isinstance(driver, Pipe) else math.inf,
                password=options.password or "",
                tls=tls,
            )
        except NotText as error:
            return _complain(str(error))
        stack.callback(console.client.close)
        driver.run(console)
        return 0 if console.failure is None else _complain(console.failure)


def _parser() -> argparse.ArgumentParser:
    parser = arguments.parser("chat-client", "Chat. /help lists the commands.")
    parser.add_argument("nick", metavar="NICK", help="what you want to be called")
    parser.add_argument("--host", default="127.0.0.1", help="where the server is (default: %(default)s)")
    parser.add_argument("--port", type=arguments.port, default=5000, help="default: %(default)s")
    parser.add_argument(
        "--secondary", metavar="HOST:PORT", type=arguments.host_port, help="where the second connection goes"
    )
    parser.add_argument(
        "--mode",
        choices=("single", "standby", "redundant"),
        help="one connection, a second one in reserve, or everything over both "
        "(default: single; with --secondary redundant)",
    )
    parser.add_argument(
        "--no-colour",
        action="store_true",
        help="use no colours; the environment variable NO_COLOR means the same",
    )
    parser.add_argument("--bell", action="store_true", help="ring when somebody writes to you or mentions you")
    parser.add_argument(
        "--history", metavar="FILE", type=arguments.file, help="keep what is typed in this file, for the arrow keys"
    )
    parser.add_argument(
        "--downloads",
        metavar="FOLDER",
        type=Path,
        default=DOWNLOADS,
        help="where received files go (default: %(default)s)",
    )
    parser.add_argument(
        "--tls", action="store_true", help="make the connections private, and check the server's certificate"
    )
    arguments.add_password_file(parser, "the server's password is the first line of this file")
    parser.add_argument(
        "--ca",
        metavar="FILE",
        type=arguments.file,
        help="trust these authorities only (PEM) rather than the system's; implies --tls",
    )
    parser.add_argument("--record", metavar="FILE.csv", type=arguments.file, help="write a row for each message")
    return parser


def _driver(loop: Loop, options: argparse.Namespace, stack: contextlib.ExitStack) -> "Terminal | Pipe":
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):  # None: closed
        return Pipe(loop)
    from prompt_toolkit.application import create_app_session  # a pipe need not wait for it to load

    from chat.console.screen import screen
    from chat.console.terminal import Terminal

    stack.enter_context(create_app_session(output=screen()))
    colours = not (options.no_colour or os.environ.get("NO_COLOR"))
    return Terminal(loop, colours=colours, history=options.history, bell=options.bell)


def _open(path: str) -> TextIO:
    return open(path, "w", newline="", encoding="utf-8", opener=private)


def _complain(sentence: str) -> int:
    print(f"chat-client: {visible(sentence)}", file=sys.stderr)
    return 1

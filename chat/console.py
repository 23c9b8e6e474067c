"""The interactive client: one input line, and above it what happens in the chat.

On a terminal prompt_toolkit's asyncio loop watches the chat's loop; with a pipe for input there is only the
chat's loop. Either way there is one thread, and nothing polls.
"""

import argparse
import asyncio
import codecs
import contextlib
import os
import selectors
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import TextIO

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.formatted_text import FormattedText

from chat.client import ChatClient, Mode
from chat.display import describe, visible
from chat.errors import ChatError
from chat.loop import Loop
from chat.recorder import Recorder
from chat.session import Closed, Echoed, Event, Received, Registered
from chat.tally import Tally
from chat.transport import Address, reason_of

HELP = """\
/msg NICK TEXT  say something to one person
/who            who is here
/stats          response times and connections
/reconnect      break all connections and open new ones
/exit           leave; so do Ctrl-D and Ctrl-C
Anything else is said to everyone. A line that begins with // is said with one / less."""

#: The style of what one wrote oneself.
DIM = "fg:ansibrightblack"


class Console:
    """Lines typed in, lines shown; knows neither terminal nor pipe.

    Args:
        show: called with a line and the style to show it in.
        recorder: is given every message.
    """

    def __init__(
        self,
        loop: Loop,
        nick: str,
        primary: Address,
        secondary: Address | None,
        mode: Mode,
        *,
        show: Callable[[str, str], None],
        recorder: Recorder | None = None,
    ) -> None:
        self.client = ChatClient(loop, nick, primary, secondary, mode=mode, on_event=self._event)
        #: Called when the client is registered, and when it has ended.
        self.on_change: Callable[[], None] = lambda: None
        #: Why the chat ended, if we did not leave ourselves.
        self.failure: str | None = None
        self._show = show
        self._recorder = recorder
        self._tally = Tally()
        #: A refusal before is the end, and told as such.
        self._welcomed = False
        self._left = False

    def __repr__(self) -> str:
        return f"<Console {self.client!r}>"

    def line(self, line: str) -> None:
        """The person entered a line."""
        line = line.strip()
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._command(*line.split(maxsplit=1))
            elif line:
                self.client.say(line.removeprefix("/"))
        except ChatError as error:
            self._show(f"! {error}", "")

    def leave(self) -> None:
        """The person wants to go."""
        self._left = True
        self.client.leave()

    def _command(self, name: str, rest: str = "") -> None:
        match name, rest.split(maxsplit=1):
            case "/help", []:
                self._show(HELP, "")
            case "/msg", [nick, text]:
                self.client.tell(nick, text)
            case "/who", []:
                self.client.who()
            case "/stats", []:
                for line in self._tally.report(self.client.tcp_info()):
                    self._show(f"* {line}", "")
                client = self.client
                self._show(f"* {client.takeovers} takeover(s), {client.resumptions} resumption(s)", "")
            case "/reconnect", []:
                self.client.reconnect()
            case "/exit", []:
                self.leave()
            case "/msg", _:
                self._show("! Usage: /msg NICK TEXT", "")
            case (("/help" | "/who" | "/stats" | "/reconnect" | "/exit"), _):
                self._show(f"! {name} takes no argument.", "")
            case _:
                self._show(f"! There is no command {visible(name)}; /help lists them all.", "")

    def _event(self, event: Event) -> None:
        nick = self.client.nick
        self._welcomed |= isinstance(event, Registered)
        if isinstance(event, Echoed | Received) and self._recorder is not None:
            self._recorder.add(nick, event)
        if isinstance(event, Echoed):
            self._tally.add(event.path, event.response_time_ns / 1e6)
        if isinstance(event, Closed) and not self._left:
            self.failure = f"{event.reason} {len(event.lost)} message(s) may be lost." if event.lost else event.reason
        line = describe(event, nick)
        if line is not None and self._welcomed:
            self._show(line, DIM if isinstance(event, Echoed) else "")
        if isinstance(event, Registered | Closed):
            self.on_change()


class Terminal:
    """Drives a console on a terminal."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._lines: list[tuple[str, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        loop.at_turn_end(self._print)

    def show(self, line: str, style: str) -> None:
        """Print the line above the input line at the end of this turn, together with all others of the turn."""
        self._lines.append((style, line + "\n"))

    def run(self, console: Console) -> None:
        """Until the client has ended."""
        asyncio.run(self._run(console))

    async def _run(self, console: Console) -> None:
        changed = asyncio.Event()
        console.on_change = changed.set
        asyncio.get_running_loop().add_reader(self._loop.fileno(), self._turn)
        console.client.connect()
        self._turn()
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C before there is a prompt to catch it
            await changed.wait()
        changed.clear()
        over = asyncio.create_task(changed.wait())
        # What was typed disappears on Enter, and appears again as a message once the server has it.
        session: PromptSession[str] = PromptSession(erase_when_done=True, interrupt_exception=EOFError)
        # Between two prompts too: otherwise Ctrl-C and Ctrl-D would mean something else just then.
        with session.app.input.raw_mode():
            while console.client.registered and (line := await self._ask(session, over)) is not None:
                console.line(line)
                self._turn()
        if not console.client.closed:
            console.leave()
            self._turn()
            await over
        asyncio.get_running_loop().remove_reader(self._loop.fileno())
        self._print()

    async def _ask(self, session: PromptSession[str], over: asyncio.Task[bool]) -> str | None:
        """The next line; None if the person, or the chat, has come to an end."""
        typing = asyncio.create_task(session.prompt_async("> "))
        await asyncio.wait([typing, over], return_when=asyncio.FIRST_COMPLETED)
        if not typing.done():
            typing.cancel()
        with contextlib.suppress(EOFError, asyncio.CancelledError):
            return await typing
        return None

    def _turn(self) -> None:
        """Let the chat's loop take a turn, and see to it that it gets the next one when its next timer is due."""
        self._loop.run_once(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_ns = self._loop.next_deadline_ns()
        if deadline_ns is not None:
            delay_s = max(0.0, (deadline_ns - self._loop.now_ns()) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._turn)

    def _print(self) -> None:
        if self._lines:
            print_formatted_text(FormattedText(self._lines), end="")
            self._lines = []


class Pipe:
    """Drives a console whose input is a pipe or a file: plain lines, and at their end it leaves."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._lines: deque[str] = deque()
        self._at_end = False
        self._input = sys.stdin.fileno()

    def show(self, line: str, _style: str) -> None:
        """Print the line at once."""
        print(line, flush=True)

    def run(self, console: Console) -> None:
        """Until the client has ended."""
        console.client.connect()
        try:
            self._loop.add(self._input, selectors.EVENT_READ, lambda _: self._read())
        except PermissionError:  # a file is always ready, so it cannot be waited for
            while not self._at_end:
                self._read()
        # Not a KeyboardInterrupt: raised in the middle of a turn, it would lose what that turn had just read.
        signal.signal(signal.SIGINT, lambda *_: self._loop.call_soon_threadsafe(console.leave))
        while not console.client.closed:
            self._loop.run_once()
            self._hand_over(console)

    def _read(self) -> None:
        data = os.read(self._input, 65_536)
        *lines, self._rest = (self._rest + self._decoder.decode(data, final=not data)).split("\n")
        self._lines.extend(lines)
        if not data:
            self._lines.append(self._rest)
            self._at_end = True
            with contextlib.suppress(KeyError):
                self._loop.remove(self._input)

    def _hand_over(self, console: Console) -> None:
        while self._lines and console.client.registered:
            console.line(self._lines.popleft())
        if self._at_end and not self._lines and console.client.registered and not console.client.pending:
            console.leave()


def main() -> int:
    """The command `chat-client`; returns its exit code."""
    options = _parser().parse_args()
    mode: Mode = options.mode or ("redundant" if options.secondary else "single")
    with contextlib.ExitStack() as stack:
        recorder = None
        if options.record is not None:
            try:
                recorder = Recorder(stack.enter_context(_open(options.record)))
            except OSError as error:
                return _complain(f"Cannot write {options.record}: {reason_of(error)}.")
        loop = Loop()
        stack.callback(loop.close)
        driver = Terminal(loop) if sys.stdin.isatty() and sys.stdout.isatty() else Pipe(loop)
        primary = (options.host, options.port)
        console = Console(loop, options.nick, primary, options.secondary, mode, show=driver.show, recorder=recorder)
        stack.callback(console.client.close)
        driver.run(console)
        return 0 if console.failure is None else _complain(console.failure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="chat-client", description="Chat. /help lists the commands.")
    parser.add_argument("nick", metavar="NICK", help="what you want to be called")
    parser.add_argument("--host", default="127.0.0.1", help="where the server is (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--secondary", metavar="HOST:PORT", type=_address, help="where the second connection goes")
    parser.add_argument(
        "--mode",
        choices=("single", "standby", "redundant"),
        help="one connection, a second one in reserve, or everything over both "
        "(default: single; with --secondary redundant)",
    )
    parser.add_argument("--record", metavar="FILE.csv", help="write a row for each message")
    return parser


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _open(path: str) -> TextIO:
    return open(path, "w", newline="", encoding="utf-8")


def _complain(sentence: str) -> int:
    print(f"chat-client: {sentence}", file=sys.stderr)
    return 1

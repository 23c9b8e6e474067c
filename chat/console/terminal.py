"""The interactive client on a terminal: one input line, and above it what happens in the chat.

Below it a status bar. prompt_toolkit's asyncio loop watches the chat's loop: there is one thread, and nothing polls.
"""

import asyncio
import contextlib
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.application import get_app, get_app_session, in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.renderer import print_formatted_text as print_fragments
from prompt_toolkit.shortcuts import CompleteStyle, clear
from prompt_toolkit.styles import Style

from chat.console.commands import COMMANDS, enter, kind_at
from chat.console.console import DIM, Console
from chat.console.display import colour_of
from chat.console.history import KeptHistory
from chat.console.lookback import LookBack
from chat.console.wrap import Fragment, wrapped
from chat.net.loop import Loop
from chat.words import brief, count, visible

#: Who has not touched a key for so long has perhaps not read what came in the meantime.
IDLE_S = 30.0
#: How often the status bar is drawn anew when nothing happens.
_STATUS_S = 1.0
#: How many lines can be scrolled back to.
_KEPT_LINES = 10_000
#: Longest line that is shown whole. A text is at most half as long (8 KiB, each byte of which may be shown as four
#: characters); a list of people may be longer, and so may anything of a server that keeps to no limits.
_LINE_CHARS = 65_536
#: Lines that are broken go on below what is said, beside the time.
_INDENT = len("00:00 ")


class Words(Completer):
    """Completes commands, nicknames, rooms and paths: what the table of commands expects at this place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        kind, word = kind_at(line), line.rpartition(" ")[2]
        if kind == "PATH":
            yield from self._complete_path(line.split(" ", 2)[2], complete_event)
            return
        for candidate in self._candidates(kind):
            if candidate.casefold().startswith(word.casefold()):
                # Who begins with a nickname speaks to that person.
                end = ":" if kind == "NICK" and line == word else ""
                yield Completion(candidate + end, start_position=-len(word))

    def _complete_path(self, typed: str, complete_event: CompleteEvent) -> Iterable[Completion]:
        """A folder is completed with its slash, so that the next Tab goes into it."""
        path = typed.lstrip("'\"")
        for found in self._paths.get_completions(Document(path), complete_event):
            whole = Path(path + found.text).expanduser()
            yield Completion(found.text + ("/" if whole.is_dir() else ""), found.start_position, display=found.display)

    def _candidates(self, kind: str) -> list[str]:
        names = {
            "COMMAND": [command.name for command in COMMANDS],
            "NICK": [*self._console.nicks],
            "ROOM": [*self._console.rooms],
            "N": self._console.shelf.numbers,
        }
        return sorted(names.get(kind, ()))


class Terminal:
    """Drives a console on a terminal.

    Args:
        colours: whether to use any.
        history: the file that keeps what is typed, for the arrow keys; none if not given.
        bell: whether to ring when somebody speaks to us.
    """

    def __init__(self, loop: Loop, *, colours: bool, history: str | None = None, bell: bool = False) -> None:
        self._loop = loop
        self._colours = colours
        self._history: History = KeptHistory(history, self.show) if history else InMemoryHistory()
        self._bell = bell
        #: What is to be printed, line by line; while somebody looks back, no more than can be scrolled back to.
        self._lines: deque[list[Fragment]] = deque(maxlen=_KEPT_LINES)
        #: How many lines came before those, and are not printed.
        self._left_out = 0
        #: What was, line by line, for PageUp.
        self._past: deque[list[Fragment]] = deque(maxlen=_KEPT_LINES)
        #: Somebody reads there: what comes is printed afterwards.
        self._looking_back: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._touched_s = time.monotonic()
        #: Messages that came while nobody touched a key.
        self._unread = 0
        #: What the person is asked, or was last.
        self._session: PromptSession[str] | None = None
        #: What stands below the input line.
        self._status: Callable[[], str] = str
        self._bars: Callable[[], str] = str
        self._bars_shown = ""
        loop.at_turn_end(self._print)

    def show(self, line: str, style: str = "", speaker: str = "", *, is_for_us: bool = False) -> None:
        """Print the line above the input line at the end of this turn, together with all others of the turn."""
        if speaker and time.monotonic() - self._touched_s > IDLE_S:
            if not self._unread:
                self._add((DIM, "── new ──"))
            self._unread += 1
        line = brief(line, _LINE_CHARS)
        before, name, after = line.partition(visible(speaker)) if speaker else ("", "", line)
        self._add((DIM, time.strftime("%H:%M ")), (style, before), (colour_of(speaker), name), (style, after))
        if is_for_us and self._bell and self._session is not None:
            self._session.output.bell()

    def run(self, console: Console) -> None:
        """Until the client has ended."""
        asyncio.run(self._run(console))

    async def _run(self, console: Console) -> None:
        changed = asyncio.Event()
        console.on_change = changed.set
        asyncio.get_running_loop().add_reader(self._loop.fileno(), self._turn)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` has it ignored
                asyncio.get_running_loop().add_signal_handler(number, self._stop, changed)
        console.client.connect()
        self._turn()
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C before there is a prompt to catch it
            await changed.wait()
        changed.clear()
        over = asyncio.create_task(changed.wait())
        session = self._make_session(console)
        console.is_watched = True
        console.clear = clear
        self._status, self._bars = lambda: status(console), console.shelf.bars
        if console.client.registered:
            console.who()
        # Between two prompts too: otherwise Ctrl-C and Ctrl-D would mean something else just then.
        with session.app.input.raw_mode():
            while console.client.registered and (line := await self._ask(session, over)) is not None:
                self._touch()
                for each in await self._confirmed(line.splitlines(), over):
                    if not console.leaving:  # what was pasted behind /exit is not meant to be said
                        enter(console, each)
                self._turn()
                if console.leaving:
                    break
        if not console.client.closed:
            console.go()
            self._turn()
        while not console.client.closed:
            changed.clear()
            await changed.wait()
        asyncio.get_running_loop().remove_reader(self._loop.fileno())
        self._print()

    def _stop(self, changed: asyncio.Event) -> None:
        """End the prompt, which gives the terminal back as it was; then we leave."""
        if self._looking_back:
            self._looking_back.cancel()  # the prompt would wait for it
        changed.set()

    def _make_session(self, console: Console) -> PromptSession[str]:
        # What was typed disappears on Enter, and appears again as a message once the server has it.
        session: PromptSession[str] = PromptSession(
            lambda: f"{f'({self._unread} new) ' if self._unread else ''}{visible(console.room)}> ",
            erase_when_done=True,
            interrupt_exception=EOFError,
            completer=Words(console),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            history=self._history,
            key_bindings=self._keys(),
            enable_suspend=True,
            bottom_toolbar=self._toolbar,
            refresh_interval=_STATUS_S,
        )
        session.default_buffer.on_text_changed += lambda buffer: self._typed(console, buffer.text)
        return session

    def _typed(self, console: Console, line: str) -> None:
        self._touch()
        if line.endswith(" ") and kind_at(line) == "ROOM":
            console.learn_rooms()  # what completes the name is here by the time that it is asked for

    async def _ask(self, session: PromptSession[str], over: asyncio.Task[bool]) -> str | None:
        """The next line; None if the person, or the chat, has come to an end."""
        self._session = session
        typing = asyncio.create_task(session.prompt_async())
        await asyncio.wait([typing, over], return_when=asyncio.FIRST_COMPLETED)
        if not typing.done():
            typing.cancel()
        with contextlib.suppress(EOFError, asyncio.CancelledError):
            return await typing
        return None

    async def _confirmed(self, lines: list[str], over: asyncio.Task[bool]) -> list[str]:
        """The lines that were pasted, if the person means each to be a message."""
        if len(lines) < 2:
            return lines
        question = f"Enter these {len(lines)} lines one by one? [y/N] "
        answer = await self._ask(PromptSession(question, interrupt_exception=EOFError, erase_when_done=True), over)
        if (answer or "").strip().lower() not in ("y", "yes"):
            self.show("* the lines were thrown away")
            return []
        return lines

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c", filter=Condition(lambda: bool(get_app().current_buffer.text)))
        def _discard(event: KeyPressEvent) -> None:
            event.current_buffer.reset()

        @keys.add("pageup")
        def _look_back(event: KeyPressEvent) -> None:
            event.app.create_background_task(self._look_back())

        return keys

    async def _look_back(self) -> None:
        if not self._past or self._looking_back:
            return
        self._looking_back = asyncio.current_task()
        try:
            async with in_terminal():
                await LookBack(self._past, _INDENT).show()
        finally:
            self._looking_back = None
            self._touch()
            self._print()

    def _toolbar(self) -> str:
        return "\n".join(filter(None, [self._bars(), self._status()]))

    def _touch(self) -> None:
        self._touched_s = time.monotonic()
        self._unread = 0

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

    def _add(self, *line: Fragment) -> None:
        self._left_out += len(self._lines) == _KEPT_LINES
        self._lines.append([(style if self._colours else "", text) for style, text in line])

    def _print(self) -> None:
        if self._looking_back:
            return
        if self._lines:
            width = get_app_session().output.get_size().columns
            if self._left_out:
                self._lines[0] = [("", f"── {count(self._left_out + 1, 'line')} left out ──")]
                self._left_out = 0
            self._past += self._lines
            text = [each for line in self._lines for each in (*wrapped(line, width, _INDENT), ("", "\n"))]
            self._lines.clear()
            self._print_above(text)
        elif self._bars() != self._bars_shown:
            self._redraw()

    def _print_above(self, text: list[Fragment]) -> None:
        """Without `run_in_terminal`, which hands the keys to the terminal meanwhile: a Ctrl-C would become a signal."""
        session = self._session
        if session is None:
            print_formatted_text(FormattedText(text), end="")
            return
        app = session.app
        app.renderer.erase()
        print_fragments(app.output, FormattedText(text), Style([]), color_depth=app.color_depth)
        if app.is_running and not app.is_done:
            app.renderer.request_absolute_cursor_position()
            self._redraw()

    def _redraw(self) -> None:
        if self._session is not None:
            self._bars_shown = self._bars()
            self._session.app.invalidate()


def status(console: Console) -> str:
    """The status bar: who and where we are, what is unread, and how each connection is."""
    who = f"{visible(console.client.nick)}{' (away)' if console.away is not None else ''}"
    unread = ", ".join(f"{visible(room)} {number}" for room, number in console.unread.items())
    ways = []
    for name, _, state, info, *_ in console.client.connections():
        rtt_ms = console.tally.rtt_ms(name, info)
        ways.append(f"{name} {state}" + (f", {rtt_ms:.1f} ms" if rtt_ms is not None else ""))
    return " | ".join(filter(None, [f" {who}", visible(console.room), unread and f"unread: {unread}", *ways]))

"""The interactive client on a terminal: one input line, and above it what happens in the chat.

prompt_toolkit's asyncio loop watches the chat's loop: there is one thread, and nothing polls.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History
from prompt_toolkit.shortcuts import CompleteStyle

from chat.console.commands import COMMANDS, enter, kind_at
from chat.console.console import DIM, Console
from chat.console.display import colour_of, visible
from chat.net.loop import Loop

#: Who has not touched a key for so long has perhaps not read what came in the meantime.
IDLE_S = 30.0


class Words(Completer):
    """Completes commands, nicknames, rooms and paths: what the table of commands expects at this place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        line = document.text_before_cursor
        kind, word = kind_at(line), line.rpartition(" ")[2]
        if kind == "PATH":
            yield from self._paths.get_completions(Document(word), complete_event)
            return
        for candidate in self._candidates(kind):
            if candidate.casefold().startswith(word.casefold()):
                # Who begins with a nickname speaks to that person.
                end = ":" if kind == "NICK" and line == word else ""
                yield Completion(candidate + end, start_position=-len(word))

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
        history: what was typed earlier, for the arrow keys.
    """

    def __init__(self, loop: Loop, *, colours: bool, history: History) -> None:
        self._loop = loop
        self._colours = colours
        self._history = history
        self._lines: list[tuple[str, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._touched_s = time.monotonic()
        #: Messages that came while nobody touched a key.
        self._unread = 0
        self._session: PromptSession[str] | None = None
        #: The progress of files, shown below the input line.
        self._bars: Callable[[], str] = str
        loop.at_turn_end(self._print)

    def show(self, line: str, style: str = "", speaker: str = "") -> None:
        """Print the line above the input line at the end of this turn, together with all others of the turn."""
        if speaker and time.monotonic() - self._touched_s > IDLE_S:
            if not self._unread:
                self._add(DIM, "── new ──\n")
            self._unread += 1
        self._add(DIM, time.strftime("%H:%M "))
        before, name, after = line.partition(visible(speaker)) if speaker else ("", "", line)
        self._add(style, before)
        self._add(colour_of(speaker), name)
        self._add(style, after + "\n")

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
        session = self._session = self._make_session(console)
        console.has_bars = True
        self._bars = console.shelf.bars
        if console.client.registered:
            console.who()
        # Between two prompts too: otherwise Ctrl-C and Ctrl-D would mean something else just then.
        with session.app.input.raw_mode():
            while console.client.registered and (line := await self._ask(session, over)) is not None:
                self._touch()
                enter(console, line)
                self._turn()
                if console.leaving:
                    break
        if not console.client.closed:
            console.go()
            self._turn()
            await over
        asyncio.get_running_loop().remove_reader(self._loop.fileno())
        self._print()

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
        )
        session.default_buffer.on_text_changed += lambda buffer: self._typed(console, buffer.text)
        return session

    def _typed(self, console: Console, line: str) -> None:
        self._touch()
        if line.endswith(" ") and kind_at(line) == "ROOM":
            console.learn_rooms()  # what completes the name is here by the time that it is asked for

    async def _ask(self, session: PromptSession[str], over: asyncio.Task[bool]) -> str | None:
        """The next line; None if the person, or the chat, has come to an end."""
        typing = asyncio.create_task(session.prompt_async())
        await asyncio.wait([typing, over], return_when=asyncio.FIRST_COMPLETED)
        if not typing.done():
            typing.cancel()
        with contextlib.suppress(EOFError, asyncio.CancelledError):
            return await typing
        return None

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

    def _add(self, style: str, text: str) -> None:
        self._lines.append((style if self._colours else "", text))

    def _print(self) -> None:
        if self._lines:
            print_formatted_text(FormattedText(self._lines), end="")
            self._lines = []
            self._redraw()
        elif self._session is not None and self._session.bottom_toolbar != (self._bars() or None):
            self._redraw()

    def _redraw(self) -> None:
        if self._session is not None:
            self._session.bottom_toolbar = self._bars() or None
            self._session.app.invalidate()

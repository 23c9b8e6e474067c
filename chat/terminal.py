"""The interactive client on a terminal: one input line, and above it what happens in the chat.

prompt_toolkit's asyncio loop watches the chat's loop: there is one thread, and nothing polls.
"""

import asyncio
import contextlib

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.formatted_text import FormattedText

from chat.commands import enter
from chat.console import Console
from chat.loop import Loop


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
                enter(console, line)
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

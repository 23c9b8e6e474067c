"""The interactive client in a pipe: plain lines in and out, without a terminal's help, so that scripts can use it."""

import codecs
import io
import os
import selectors
import signal
import sys
from collections import deque
from itertools import takewhile

from chat.console.commands import leaves, obey
from chat.console.console import Console
from chat.net.loop import Loop
from chat.protocol.errors import ChatError, FileError, TooMuchUnderWay
from chat.words import count, reason_of, visible

#: How long to wait for answers while none comes, though there is a connection. The longest message of all, to 10,000
#: people, keeps the next one of its sender waiting for 67 s (see "Limits" in chat/README.md).
PATIENCE_S = 120.0
#: Far more than any command has. Without an end, a line would grow until there is no memory left.
_LONGEST_LINE = 1_048_576


class Patience:
    """Has an end when nothing has been answered for too long. Times are CLOCK_MONOTONIC in ns."""

    def __init__(self) -> None:
        #: None: nothing is waited for.
        self._since_ns: int | None = None
        self._missing = 0

    def note(self, missing: int, now_ns: int, *, is_progress: bool) -> None:
        """So many answers are waited for now; there may have been progress, whatever their number says."""
        if not missing:
            self._since_ns = None
        elif is_progress or self._since_ns is None or missing < self._missing:
            self._since_ns, self._missing = now_ns, missing

    def ends_ns(self, now_ns: int) -> int:
        """When it will be over, or is since, unless something is answered."""
        return (now_ns if self._since_ns is None else self._since_ns) + int(PATIENCE_S * 1e9)

    def is_over(self, now_ns: int) -> bool:
        """Whether to give up."""
        return self._since_ns is not None and now_ns >= self.ends_ns(now_ns)


class Pipe:
    """Drives a console whose input is a pipe or a file: plain lines.

    No more is read than there is room for: whoever writes faster than the server takes it waits. At the end of the
    input, or after `/exit`, it leaves when all is answered and no file is on its way, or when no answer has come for
    `PATIENCE_S`.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._lines: deque[str] = deque()
        self._at_end = False
        self._after_command = False
        if sys.stdin is None:
            raise FileError("Cannot read the standard input: it is closed.")
        self._input = sys.stdin.fileno()
        #: A file is always ready, so it cannot be waited for.
        self._is_file = False
        self._is_watched = False
        self._is_interrupted = False
        self._patience = Patience()
        self._failure: Exception | None = None
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # whatever somebody says, in whatever encoding

    def show(self, line: str, style: str = "", speaker: str = "", *, is_for_us: bool = False) -> None:
        """Print the line at once."""
        try:
            print(line, flush=True)
        except BrokenPipeError as error:
            self._fail(error)
        except OSError as error:
            self._fail(FileError(f"Cannot write to the standard output: {reason_of(error)}."))

    def _fail(self, failure: Exception) -> None:
        """Not raised here, in the middle of what the client does. What is still to be shown goes nowhere."""
        self._failure = failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def run(self, console: Console) -> None:
        """Until the client has ended.

        Raises:
            FileError: the input cannot be read, or the output not be written.
            BrokenPipeError: nobody reads the output any more.
            KeyboardInterrupt: SIGINT came before everything was answered.
        """
        console.client.connect()
        # Not a KeyboardInterrupt: raised in the middle of a turn, it would lose what that turn had just read.
        signal.signal(signal.SIGINT, lambda *_: self._loop.call_soon_threadsafe(lambda: self._interrupt(console)))
        self._look_at_patience(console)
        while not console.client.closed and self._failure is None:
            self._watch()
            self._loop.run_once()
            self._hand_over(console)
        is_unsent = not console.leaving and self._tell_unsent()
        if self._failure is not None:
            raise self._failure
        if self._is_interrupted and (console.lost or is_unsent):
            raise KeyboardInterrupt
        if console.not_sent and console.failure is None:
            console.failure = f"{count(console.not_sent, 'message was', 'messages were')} not sent, or perhaps not."

    def _interrupt(self, console: Console) -> None:
        self._is_interrupted = True
        console.go()

    def _tell_unsent(self) -> bool:
        """The end came; whether that was before everything was handed over. More may have been to come."""
        self._has_line()
        meant = takewhile(lambda line: not leaves(line), (*self._lines, self._rest))
        unsent = [line for line in meant if line.strip()]
        if unsent:
            number = f"{'' if self._at_end else 'at least '}{count(len(unsent), 'line was', 'lines were')}"
            self.show(f"! {number} not sent; the first: {visible(unsent[0].strip())}")
        return bool(unsent)

    def _watch(self) -> None:
        """Wait for more input only once all that was read is handed over."""
        wanted = not (self._lines or self._at_end or self._is_file)
        if wanted and not self._is_watched:
            try:
                self._loop.add(self._input, selectors.EVENT_READ, lambda _: self._read())
                self._is_watched = True
            except PermissionError:
                self._is_file = True
        elif self._is_watched and not wanted:
            self._loop.remove(self._input)
            self._is_watched = False

    def _read(self) -> None:
        try:
            data = os.read(self._input, 65_536)
        except OSError as error:
            raise FileError(f"Cannot read the standard input: {reason_of(error)}.") from error
        *lines, self._rest = (self._rest + self._decoder.decode(data, final=not data)).split("\n")
        self._lines.extend(lines)
        if len(self._rest) > _LONGEST_LINE:
            raise FileError(f"Cannot read the standard input: a line has more than {_LONGEST_LINE:,} characters.")
        if not data:
            self._lines.append(self._rest)
            self._rest = ""
            self._at_end = True

    def _has_line(self) -> bool:
        while self._is_file and not self._lines and not self._at_end:
            self._read()
        return bool(self._lines)

    def _hand_over(self, console: Console) -> None:
        is_progress = False
        while console.client.registered and not console.leaving and self._has_line():
            line = self._lines[0]
            is_command = line.lstrip().startswith("/")
            # What a command does is done before what comes after it, and after what was said before it.
            if (is_command or self._after_command) and _unanswered(console):
                break
            try:
                obey(console, line)
            except TooMuchUnderWay:
                break  # until some of it has come back
            except ChatError as error:
                self.show(f"! {error}")
            self._after_command = is_command
            self._lines.popleft()
            is_progress = True
        at_end = console.leaving or (self._at_end and not self._lines)
        done = at_end and not console.client.files.busy
        if done and console.client.registered and not _unanswered(console):
            console.go()
        is_waiting = (done or self._lines) and console.client.registered and not console.client.away
        missing = _unanswered(console) if is_waiting else 0
        self._patience.note(missing, self._loop.now_ns(), is_progress=is_progress)

    def _look_at_patience(self, console: Console) -> None:
        """Leave if it is over; if not, look again when it may be."""
        now_ns = self._loop.now_ns()
        if self._patience.is_over(now_ns):
            console.failure = f"The server has answered nothing for {PATIENCE_S:g} s."
            console.go()
        else:
            self._loop.call_at(self._patience.ends_ns(now_ns), lambda: self._look_at_patience(console))


def _unanswered(console: Console) -> int:
    """Of how many messages it is not known what became of them, and may be yet."""
    return console.client.pending + console.client.in_doubt

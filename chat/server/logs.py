"""Logs: what a server says of itself on standard error, as text or as JSON, and never more than somebody can read."""

import logging
import sys
import time
from typing import Literal

import msgspec

from chat.words import visible

LogFormat = Literal["text", "json"]

#: Most records in a second; a crowd of strangers must not fill a disk with their addresses.
RECORDS_PER_S = 100


def log_to_stderr(form: LogFormat) -> None:
    """All that is logged from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    handler.addFilter(Throttle())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class TextLines(logging.Formatter):
    """Time and message; what strangers say can neither begin a line of its own nor act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, and the lines of a traceback if there is one."""
        line = f"{self.formatTime(record)} {visible(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


class Throttle(logging.Filter):
    """Passes so many records of a second, then says how many it did not; what is worse than `info` always passes."""

    def __init__(self, records_per_s: int = RECORDS_PER_S) -> None:
        super().__init__()
        self._records_per_s = records_per_s
        self._second = 0
        self._passed = self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is to be written."""
        if int(record.created) != self._second:
            self._second, self._passed = int(record.created), 0
            if self._dropped:
                record.msg, record.args = f"{record.getMessage()} ({self._dropped} lines before it left out)", ()
                self._dropped = 0
        self._passed += 1
        passes = self._passed <= self._records_per_s or record.levelno > logging.INFO
        self._dropped += not passes
        return passes

"""Draws the README's pictures of the terminal from what really runs: `python tests/pictures.py [client] [run]`.

`client` is a talk of two, and writes chat/client.svg; `run` is the demo in virtual time, and writes loadtests/run.svg.
"""

import re
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import pyte
from chat_helpers import RawClient, server_process
from rich.console import Console
from rich.text import Text
from terminal_helpers import Terminal, TerminalClient

PROJECT = Path(__file__).parents[1]
#: pyte's names → rich's, where they differ.
_COLOURS = {"default": "default", "brown": "yellow", "brightbrown": "bright_yellow"}


def _style(char: pyte.screens.Char) -> str:
    colour = _COLOURS.get(char.fg, char.fg.replace("bright", "bright_"))
    return f"{colour}{' reverse' if char.reverse else ''}{' bold' if char.bold else ''}"


def drawn(display: pyte.Screen, title: str) -> str:
    """What stands on the screen, as SVG."""
    console = Console(record=True, width=display.columns, file=open("/dev/null", "w"), force_terminal=True)  # noqa: SIM115
    last = max((row for row in range(display.lines) if display.display[row].strip()), default=0)
    for row in range(last + 1):
        line = Text()
        for style, chars in groupby((display.buffer[row][column] for column in range(display.columns)), _style):
            line.append("".join(char.data for char in chars), style)
        console.print(line, no_wrap=True, end="\n")
    # Without the fonts that it would load from elsewhere.
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def client() -> None:
    """A short talk, with a room, a private message and a line that breaks."""
    with server_process() as server, RawClient(server.address, "ben") as ben:
        ana = TerminalClient("ana", server, "--mode", "redundant")
        ana.until_shown("2 here")
        ana.type("hello, anybody?\r")
        ana.until_shown("hello, anybody?  (")
        for text in (
            "hi ana",
            "did your message come over the first connection, or over the second? here it is always the first",
        ):
            ben.send(type="say", text=text)
            ana.until_shown(text[:30])
        ana.type("/msg ben shall we?\r")
        ana.until_shown("shall we?  (")
        ana.type("/j tea\r")
        ana.until_shown("you are in tea")
        ben.send(type="join", room="tea")
        ana.until_shown("ben joined tea")
        ana.type("/me pours a cup\r")
        ana.until_shown("pours a cup  (")
        ben.send(type="say", text="with milk, please", room="tea")
        ana.until_shown("with milk, please")
        ben.send(type="say", text="is anybody else still here?")
        ana.until_shown("unread: lobby 1")
        picture = drawn(ana.display, "chat-client ana --mode redundant")
        (PROJECT / "chat" / "client.svg").write_text(picture, encoding="utf-8")
        ana.type("/quit\r")
        ana.end()


def run() -> None:
    """The demo, as it ends."""
    with tempfile.TemporaryDirectory() as folder:
        chatlab = str(PROJECT / ".venv" / "bin" / "chatlab")
        terminal = Terminal("env", "-C", folder, chatlab, "run", "demo", "--clock", "virtual")
        terminal.end()
    picture = drawn(terminal.display, "chatlab run demo --clock virtual")
    (PROJECT / "loadtests" / "run.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    for picture in sys.argv[1:] or ["client", "run"]:
        {"client": client, "run": run}[picture]()

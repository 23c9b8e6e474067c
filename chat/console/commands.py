"""What a person can type: one table, from which parsing, `/help` and completion follow.

A command's arguments are named as in its usage: `NICK TEXT`; one in brackets may be left out, and the last one takes
the rest of the line. The names say what may stand there, and so what completes them.
"""

from collections.abc import Callable
from typing import NamedTuple

from chat.console.console import Console
from chat.console.display import visible
from chat.protocol.errors import ChatError


class Command(NamedTuple):
    """One row of the table."""

    name: str
    #: Names of the arguments, as in `NICK TEXT` or `[ROOM]`.
    arguments: str
    help: str
    #: Called with the console and the arguments that were given.
    run: Callable[..., None]

    @property
    def usage(self) -> str:
        return f"{self.name} {self.arguments}".rstrip()

    def parse(self, rest: str) -> list[str] | None:
        """The arguments in the rest of a line; None if there are too few or too many."""
        names = self.arguments.split()
        given = rest.split(maxsplit=max(0, len(names) - 1))
        needed = sum(not name.startswith("[") for name in names)
        return given if needed <= len(given) <= len(names) else None


def _help(console: Console) -> None:
    width = max(len(command.usage) for command in COMMANDS)
    for command in COMMANDS:
        console.show(f"{command.usage:{width}}  {command.help}")
    console.show("Anything else is said to everyone in the room. A line that begins with // is said with one / less.")


COMMANDS = (
    Command("/help", "", "this list", _help),
    Command("/msg", "NICK TEXT", "say something to one person", Console.tell),
    Command("/join", "ROOM", "go into a room, or turn to one where you are", Console.join),
    Command("/leave", "[ROOM]", "go out of a room", Console.leave_room),
    Command("/rooms", "", "which rooms there are", lambda console: console.client.list_rooms()),
    Command("/who", "[ROOM]", "who is in the room", Console.who),
    Command("/nick", "NAME", "be called differently", lambda console, nick: console.client.rename(nick)),
    Command("/send", "NICK PATH", "offer somebody a file", lambda console, *words: console.shelf.send(*words)),
    Command("/accept", "[N]", "receive a file that was offered", lambda console, *n: console.shelf.accept(*n)),
    Command("/reject", "[N]", "do not want a file that was offered", lambda console, *n: console.shelf.reject(*n)),
    Command("/cancel", "[N]", "call off sending or receiving a file", lambda console, *n: console.shelf.cancel(*n)),
    Command("/stats", "", "response times and connections", Console.stats),
    Command("/connections", "", "how each connection is", Console.connections),
    Command("/reconnect", "", "break all connections and open new ones", lambda console: console.client.reconnect()),
    Command("/exit", "", "leave; so do Ctrl-D and Ctrl-C", Console.leave),
)
_BY_NAME = {command.name: command for command in COMMANDS}


def enter(console: Console, line: str) -> None:
    """The person entered a line."""
    line = line.strip()
    try:
        if line.startswith("/") and not line.startswith("//"):
            _command(console, *line.split(maxsplit=1))
        elif line:
            console.say(line.removeprefix("/"))
    except ChatError as error:
        console.show(f"! {error}")


def _command(console: Console, name: str, rest: str = "") -> None:
    command = _BY_NAME.get(name)
    if command is None:
        console.show(f"! There is no command {visible(name)}; /help lists them all.")
    elif (arguments := command.parse(rest)) is not None:
        command.run(console, *arguments)
    elif command.arguments:
        console.show(f"! Usage: {command.usage}")
    else:
        console.show(f"! {name} takes no argument.")


def kind_at(line: str) -> str:
    """What the last word of a line that is being typed would be: `COMMAND`, or an argument's name without brackets.

    In what is said, and in a text, it may be a `NICK`.
    """
    name, *given = line.split(" ")
    if not line.startswith("/") or line.startswith("//"):
        return "NICK"
    if not given:
        return "COMMAND"
    arguments = _BY_NAME[name].arguments.split() if name in _BY_NAME else []
    kind = arguments[min(len(given), len(arguments)) - 1].strip("[]") if arguments else ""
    return "NICK" if kind == "TEXT" else kind

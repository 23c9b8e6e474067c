"""What a person can type: one table, from which parsing, `/help` and completion follow.

A command's arguments are named as in its usage: `NICK TEXT`; one in brackets may be left out, and the last one takes
the rest of the line. The names say what may stand there, and so what completes them.
"""

from collections.abc import Callable
from typing import NamedTuple

from chat.console.console import Console
from chat.protocol.errors import ChatError
from chat.words import visible


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
        """The arguments in the rest of a line; None if there are too few or too many. A path may be in quotes."""
        names = self.arguments.split()
        given = rest.split(maxsplit=max(0, len(names) - 1))
        if names[-1:] == ["PATH"] and len(given) == len(names):
            given[-1] = unquoted(given[-1])
        needed = sum(not name.startswith("[") for name in names)
        return given if needed <= len(given) <= len(names) else None


def unquoted(text: str) -> str:
    """The text without the quotes around it, if there are any."""
    text = text.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


def _help(console: Console) -> None:
    width = max(len(command.usage) for command in COMMANDS)
    for command in COMMANDS:
        console.show(f"{command.usage:{width}}  {command.help}")
    console.show("Anything else is said to everyone in the room. A line that begins with // is said with one / less.")


COMMANDS = (
    Command("/help", "", "this list", _help),
    Command("/msg", "NICK TEXT", "say something to one person", Console.tell),
    Command("/me", "TEXT", "say what you do: /me waves", Console.act),
    Command("/join", "ROOM", "join a room, or switch to it", Console.join),
    Command("/leave", "[ROOM]", "leave a room", Console.leave_room),
    Command("/rooms", "", "list the rooms", lambda console: console.client.list_rooms()),
    Command("/who", "[ROOM]", "list who is in the room", Console.who),
    Command("/topic", "[TEXT]", "say what the room is about, or ask; /topic - removes it", Console.topic),
    Command("/last", "[LINES]", "show the last lines of the room again (20)", Console.recall),
    Command("/nick", "NAME", "change your nickname", lambda console, nick: console.client.rename(nick)),
    Command("/away", "[TEXT]", "tell who writes to you why you are away; without TEXT you are back", Console.go_away),
    Command("/ignore", "[NICK]", "hide what somebody says, or show it again", Console.ignore),
    Command("/send", "NICK PATH", "offer somebody a file", lambda console, *words: console.shelf.send(*words)),
    Command("/accept", "[N]", "receive a file that is offered", lambda console, *n: console.shelf.accept(*n)),
    Command("/reject", "[N]", "refuse a file that is offered", lambda console, *n: console.shelf.reject(*n)),
    Command("/cancel", "[N]", "stop sending or receiving a file", lambda console, *n: console.shelf.cancel(*n)),
    Command("/stats", "", "show response times and connections", Console.stats),
    Command("/connections", "", "show how each connection is", Console.connections),
    Command("/reconnect", "", "break all connections and open new ones", lambda console: console.client.reconnect()),
    Command("/clear", "", "clear the screen", lambda console: console.clear()),
    Command("/quit", "", "leave the chat", Console.leave),
    Command("/exit", "", "leave the chat; so do Ctrl-D and, on an empty line, Ctrl-C", Console.leave),
)
_BY_NAME = {command.name: command for command in COMMANDS}


def named(typed: str) -> list[Command]:
    """The commands that a name may mean, in whichever case: the one with this name, or all that begin so."""
    typed = typed.lower()
    return [_BY_NAME[typed]] if typed in _BY_NAME else [one for one in COMMANDS if one.name.startswith(typed)]


def enter(console: Console, line: str) -> None:
    """The person entered a line."""
    try:
        obey(console, line)
    except ChatError as error:
        console.show(f"! {error}")


def obey(console: Console, line: str) -> None:
    """Do what a line says. Raises ChatError: it cannot be done, or not now."""
    line = line.strip()
    if line.startswith("/") and not line.startswith("//"):
        _command(console, *line.split(maxsplit=1))
    elif line:
        console.say(line.removeprefix("/"))


def leaves(line: str) -> bool:
    """Whether this line ends the chat, so that nothing behind it is meant to be done."""
    words = line.split()
    return len(words) == 1 and [command.run for command in named(words[0])] == [Console.leave]


def _command(console: Console, name: str, rest: str = "") -> None:
    meant = named(name)
    if not meant:
        console.show(f"! There is no command {visible(name)}; /help lists them all.")
        return
    if len(meant) > 1:
        console.show(f"! {visible(name)} may be {', '.join(one.name for one in meant)}.")
        return
    (command,) = meant
    if (arguments := command.parse(rest)) is not None:
        command.run(console, *arguments)
    elif command.arguments:
        console.show(f"! Usage: {command.usage}")
    else:
        console.show(f"! {command.name} takes no argument.")


def kind_at(line: str) -> str:
    """What the last word of a line that is being typed would be: `COMMAND`, or an argument's name without brackets.

    In what is said, and in a text, it may be a `NICK`.
    """
    name, *given = line.split(" ")
    if not line.startswith("/") or line.startswith("//"):
        return "NICK"
    if not given:
        return "COMMAND"
    meant = named(name)
    arguments = meant[0].arguments.split() if len(meant) == 1 else []
    kind = arguments[min(len(given), len(arguments)) - 1].strip("[]") if arguments else ""
    return "NICK" if kind == "TEXT" else kind

"""chat/README.md does not lie: its example lines are replayed against a real server, and name every message."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from chat_helpers import SECOND, RawClient, ServerProcess, server_process

from chat.protocol import messages

README = (Path(__file__).parents[2] / "chat" / "README.md").read_text()
#: Each block of lines is a day of its own, with a server of its own.
DIALOGUES = [
    lines for block in README.split("```")[1::2] if (lines := re.findall(r"^(\w+)([<>]) (.*)$", block, re.MULTILINE))
]


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with server_process() as server:
        yield server


@pytest.mark.realtime("chat")
@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_replay(server: ServerProcess, dialogue: list[tuple[str, str, str]]) -> None:
    """An example of every message."""
    clients: dict[str, RawClient] = {}
    tokens: dict[str, str] = {}
    for who, direction, line in dialogue:
        if who not in clients:
            clients[who] = RawClient(server.address)
        client = clients[who]
        if direction == ">":
            for name, token in tokens.items():
                line = line.replace(f'"{name}"', f'"{token}"')
            client.send_line(line.encode())
            continue
        expected, found = json.loads(line), client.receive()
        assert found is not None, f"the connection ended before {line}"
        if "token" in expected:
            tokens[expected["token"]] = expected["token"] = found["token"]
        if "history" in expected:
            expected["history"] = found["history"]
        assert found == expected
    for client in clients.values():
        client.close()


@pytest.mark.realtime("chat")
def test_the_program_ends_with_the_chat(server: ServerProcess) -> None:
    program = README.split("```python\n")[1].split("```")[0].replace("5000", str(server.address[1]))
    with RawClient(server.address, "ana"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=10 * SECOND, check=False
        )
    assert done.stdout.splitlines()[-1] == "Closed(reason='Somebody here is already called ana.', lost=())"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("direction", ["Up", "Down"])
def test_every_message_has_a_row_and_an_example(direction: str) -> None:
    section = README.split(f"## {direction}: ")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    structs: list[Any] = [*get_args(getattr(messages, direction))]
    assert list(rows) == [struct.__struct_config__.tag for struct in structs]
    for struct in structs:
        name = struct.__struct_config__.tag
        assert f'{{"type":"{name}"' in README, f"no example of {name}"
        if name != "bye":
            assert sorted(re.findall(r"`(\w+)`", rows[name])) == sorted(struct.__struct_encode_fields__)
            optional = {field.encode_name for field in msgspec.structs.fields(struct) if not field.required}
            # What need not be said may be said all the same, as the history in a welcome.
            assert set(re.findall(r"`(\w+)`\?", rows[name])) == optional or (direction == "Down" and name == "welcome")


def test_every_code_is_listed() -> None:
    source = "".join(file.read_text() for file in (Path(__file__).parents[2] / "chat").rglob("*.py"))
    codes = set(re.findall(r"(?:Refusal|BadLine|Error)\(\s*\"(\w+)\"", source))
    listed = set(re.findall(r"`(\w+)`", README.split("Codes of `refused`")[1].split("\n\n")[0])) - {"error"}
    assert codes == listed

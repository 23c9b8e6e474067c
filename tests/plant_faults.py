"""Plants faults, one at a time, in a copy of the chat, and shows that the stateful test finds each: `python FILE`.

The copy is in a temporary folder; the working tree is not touched.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TEST = "tests/chat/test_chat_stateful.py"
#: In the copy a first failure is enough: nobody reads the shortest one, which takes minutes to find. And so many
#: examples that each fault is met, which those of `make test` now and then do not do.
FIRST_FAILURE = """
from hypothesis import Phase
Chat.TestCase.settings = settings(Chat.TestCase.settings, phases=[Phase.generate], max_examples=2_000)
"""


class Fault(NamedTuple):
    """One line made wrong."""

    name: str
    file: str
    right: str
    wrong: str


FAULTS = [
    Fault(
        "an off-by-one in replay",
        "chat/server/log.py",
        "start = cursor - self.first_seq + 1 + self._dropped",
        "start = max(0, cursor - self.first_seq) + self._dropped",
    ),
    Fault(
        "a forgotten id window",
        "chat/server/hub.py",
        "if number is not None and not session.ids.accept(number):",
        "if number is None and not session.ids.accept(0):",
    ),
    Fault(
        "something new that is taken for a copy",
        "chat/server/replay.py",
        "if number is None or not self.highest - ID_WINDOW < number <= self.highest:",
        "if number is None or not self.highest - ID_WINDOW < number <= self.highest + 1:",
    ),
    Fault(
        "of what is said in a row, numbers that are all the same",
        "chat/server/talk.py",
        "for seq, say in enumerate(says, first)]",
        "for seq, say in zip([first] * len(says), says)]",
    ),
    Fault(
        "a cursor not moved on a partial send",
        "chat/server/backlog.py",
        "self._cursors[log] += lines",
        "pass",
    ),
    Fault(
        "a trim that does not announce",
        "chat/server/backlog.py",
        "self.enqueue(encode(Gap(log.name, missed)))",
        "pass",
    ),
    Fault(
        "a laggard promoted too early",
        "chat/server/delivery.py",
        "if backlog.pending:",
        "if backlog.direct_bytes:",
    ),
    Fault(
        "one who is ahead promoted too early",
        "chat/server/delivery.py",
        "elif any(self._heads[log].flushed < log.last_seq for log in connection.cursors):",
        "elif not backlog:",
    ),
    Fault(
        "one who is ahead forgotten",
        "chat/server/delivery.py",
        "self._ahead[connection] = None",
        "pass",
    ),
    Fault(
        "a member of the head sent twice",
        "chat/server/delivery.py",
        "del head.members[connection]",
        "pass",
    ),
    Fault(
        "one who is sent several logs together and one by one",
        "chat/server/delivery.py",
        "if each not in together",
        "if each",
    ),
    Fault(
        "a direct line overtaking a cut line",
        "chat/server/backlog.py",
        "self._direct.append(line)",
        "self._direct.insert(0, line)",
    ),
    Fault(
        "a token that attaches to the wrong session",
        "chat/server/hub.py",
        "session = self._by_token.get(token)",
        "session = next(iter(self._by_token.values()), None)",
    ),
    Fault(
        "a room whose numbers begin again when it is opened again",
        "chat/server/rooms.py",
        "after=self._last_seq)",
        "after=0)",
    ),
    Fault(
        "what was said before one left a room is not sent",
        "chat/server/backlog.py",
        "if (part := self._new_part(log)) is not None:",
        "if (part := None) is not None:",
    ),
    Fault(
        "news of rooms that are out of date",
        "chat/client/following.py",
        "if number < self.last_change or path not in self._paths:",
        "if path not in self._paths:",
    ),
    Fault(
        "a session that goes on without its rooms",
        "chat/server/hub.py",
        "cursors = {log.name: self._start(log, first, cursors) for log, first in _logs_of(session).items()}",
        "cursors = {log.name: cursors.get(log.name, log.last_seq) for log in _logs_of(session)}",
    ),
]


def passes(root: Path) -> bool:
    """Whether the stateful test passes in this copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", TEST]
    return subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Exit code 0 if the test passes without a fault and fails with each."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder in ("chat", "tests"):
            shutil.copytree(ROOT / folder, root / folder)
        shutil.copy(ROOT / "pyproject.toml", root)
        with (root / TEST).open("a") as test:
            test.write(FIRST_FAILURE)
        good = passes(root)
        print(f"no fault: the test {'passes' if good else 'FAILS'}")
        for fault in FAULTS:
            file = root / fault.file
            source = file.read_text()
            assert source.count(fault.right) == 1, f"{fault.file} has changed: {fault.right}"
            file.write_text(source.replace(fault.right, fault.wrong))
            found = not passes(root)
            file.write_text(source)
            print(f"{fault.name}: {'found' if found else 'NOT FOUND'}")
            good &= found
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

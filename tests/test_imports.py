"""Imports go in one direction, and pure files stay pure."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Floors of each package, lowest first: a file imports from its own floor's lower neighbours, never upwards.
FLOORS = {
    "chat": [
        {"chat.errors"},
        {"chat.fields"},
        {"chat.messages"},
        {"chat.events"},
        {"chat.wire"},
        {
            "chat.log",
            "chat.outbox",
            "chat.names",
            "chat.idwindow",
            "chat.members",
            "chat.following",
            "chat.directory",
            "chat.rooms",
            "chat.hub",
            "chat.session",
            "chat.courier",
            "chat.delaywindow",
            "chat.files",
        },
        {"chat.loop", "chat.transport", "chat.tcpinfo", "chat.pulse", "chat.downloads"},
        {"chat.path", "chat.transfers"},
        {"chat.filedesk", "chat.speaker"},
        {"chat.journal", "chat.recorder", "chat.tally", "chat.display"},
        {"chat.server", "chat.client"},
        {"chat.shelf"},
        {"chat.console", "chat.monitor"},
        {"chat.commands"},
        {"chat.terminal", "chat.pipe"},
        {"chat.interactive"},
        {"chat.__main__"},
    ],
    "loadtests": [
        {
            "loadtests.errors",
            "loadtests.units",
            "loadtests.samples",
            "loadtests.schedule",
            "loadtests.children",
        },
        {"loadtests.thresholds"},
        {"loadtests.yamlfile"},
        {"loadtests.link"},
        {
            "loadtests.scenario",
            "loadtests.recorder",
            "loadtests.collect",
            "loadtests.machine",
            "loadtests.analysis",
            "loadtests.capture",
            "loadtests.linktable",
        },
        {"loadtests.fileload"},
        {"loadtests.matrix", "loadtests.engine", "loadtests.batches", "loadtests.report", "loadtests.verdict"},
        {"loadtests.users", "loadtests.shape", "loadtests.workers", "loadtests.load", "loadtests.progress"},
        {"loadtests.locustfile", "loadtests.run"},
        {"loadtests.cli"},
        {"loadtests.__main__"},
    ],
}
PURE = ["chat/fields.py", "chat/messages.py", "chat/wire.py", "chat/log.py", "chat/hub.py", "chat/session.py"]
PURE += [
    "chat/outbox.py",
    "chat/pulse.py",
    "chat/events.py",
    "chat/names.py",
    "chat/idwindow.py",
    "chat/members.py",
    "chat/rooms.py",
    "chat/following.py",
    "chat/directory.py",
]
PURE += ["chat/courier.py", "chat/delaywindow.py", "chat/files.py"]
PURE += ["loadtests/link/profile.py", "loadtests/link/effects.py", "loadtests/link/pipeline.py"]
IMPURE = {"socket", "selectors", "select", "time", "logging", "os", "subprocess", "asyncio", "threading", "pathlib"}
LOCUST_FILES = {"loadtests/locustfile.py", "loadtests/users.py", "loadtests/shape.py"}


def imports(file: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(package: str) -> dict[str, Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def floor_of(module: str, floors: list[set[str]]) -> int | None:
    """The floor of a module, or of the sub-package that it is in."""
    for number, floor in enumerate(floors):
        if any(module == entry or module.startswith(f"{entry}.") for entry in floor):
            return number
    return None


@pytest.mark.parametrize("package", FLOORS)
def test_imports_point_downwards(package: str) -> None:
    floors = FLOORS[package]
    for module, file in modules(package).items():
        if module == package:
            continue
        own = floor_of(module, floors)
        assert own is not None, f"{module} has no floor: give it one in this test"
        for imported in imports(file):
            below = floor_of(imported, floors)
            assert below is None or below <= own, f"{module} imports {imported}, which is above it"


def test_there_are_no_import_cycles() -> None:
    graph = {}
    for package in FLOORS:
        known = modules(package)
        graph |= {module: imports(file) & set(known) - {module} for module, file in known.items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' → '.join((*trail, module))}"
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_server_and_client_know_nothing_of_each_other() -> None:
    assert not any(name.startswith("chat.client") for name in imports(ROOT / "chat/server.py"))
    assert not any(name.startswith("chat.server") for name in imports(ROOT / "chat/client.py"))


def test_chat_knows_nothing_of_the_harness() -> None:
    for file in modules("chat").values():
        assert not any(name.startswith("loadtests") for name in imports(file)), file


@pytest.mark.parametrize("file", PURE)
def test_pure_files_do_no_io(file: str) -> None:
    assert not imports(ROOT / file) & IMPURE


def test_only_the_locust_files_import_locust() -> None:
    importing = {
        str(file.relative_to(ROOT))
        for file in modules("loadtests").values()
        if any(name.split(".")[0] == "locust" for name in imports(file))
    }
    assert importing == LOCUST_FILES


def test_third_party_packages_of_the_chat_are_two() -> None:
    outside = {name.split(".")[0] for file in modules("chat").values() for name in imports(file)}
    assert outside - set(sys.stdlib_module_names) == {"chat", "msgspec", "prompt_toolkit"}

"""Imports go in one direction, and pure files stay pure."""

import ast
import functools
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Floors of each package, lowest first. Rooms of one floor are side by side: they do not import each other.
FLOORS = {
    "chat": ["words records", "protocol arguments", "net", "server client", "console", "__main__"],
    "loadtests": [
        "errors samples stalls clocks data percentiles",
        "config",
        "link.model",
        "link.sandbox",
        "link.measure",
        "link.backends",
        "link",
        "scenario",
        "run.manifest",
        "run.attempts",
        "analysis load",
        "run locustfile",
        "clock journey",
        "commands",
        "cli",
        "__main__",
    ],
}
#: Rooms and files without input, output, clock or chance of their own.
PURE = ["chat/protocol"]
PURE += [
    f"chat/client/{name}.py"
    for name in ("session", "identity", "asking", "outgoing", "following", "doubts", "lines", "events", "pulse")
]
PURE += [f"chat/client/files/{name}.py" for name in ("states", "delaywindow")]
PURE += [
    f"chat/server/{name}.py"
    for name in (
        "absent",
        "log",
        "hub",
        "backlog",
        "delivery",
        "replay",
        "members",
        "membership",
        "talk",
        "rooms",
        "directory",
        "filerelay",
    )
]
PURE += [f"loadtests/link/model/{name}.py" for name in ("profile", "effects", "pipeline")]
PURE += [f"loadtests/run/wire/{name}.py" for name in ("arrivals", "join")]
PURE += ["loadtests/run/disturbed.py", "loadtests/stalls/intervals.py"]
IMPURE = {"socket", "selectors", "select", "time", "logging", "os", "subprocess", "asyncio", "threading", "pathlib"}
LOCUST_FILES = {f"loadtests/{name}.py" for name in ("locustfile", "load/users", "load/shape", "load/webtab")}


@functools.cache
def imports(file: Path, *, at_once: bool = False) -> frozenset[str]:
    """The modules that a file imports, wherever in it; or as soon as it is imported itself."""
    found: set[str] = set()
    tree = ast.parse(file.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def modules(package: str) -> dict[str, Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def place_of(module: str, package: str) -> tuple[int, str] | None:
    """Floor and room of a module: those of the longest name that it begins with."""
    rooms = {f"{package}.{room}": floor for floor, names in enumerate(FLOORS[package]) for room in names.split()}
    own = [room for room in rooms if module == room or module.startswith(f"{room}.")]
    return (rooms[max(own, key=len)], max(own, key=len)) if own else None


@pytest.mark.parametrize("package", FLOORS)
def test_imports_point_downwards(package: str) -> None:
    for module, file in modules(package).items():
        if module == package:
            continue
        own = place_of(module, package)
        assert own is not None, f"{module} has no floor: give it one in this test"
        for imported in imports(file) & set(modules(package)) - {package}:
            other = place_of(imported, package)
            assert other is not None
            assert other[0] < own[0] or other == own, f"{module} must not import {imported}"


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


def test_chat_knows_nothing_of_the_harness() -> None:
    for file in modules("chat").values():
        assert not any(name.startswith("loadtests") for name in imports(file)), file


@pytest.mark.parametrize("place", PURE)
def test_pure_files_do_no_io(place: str) -> None:
    """Nor does anything of ours that they import."""
    ours = {module: file for package in FLOORS for module, file in modules(package).items()}
    path = ROOT / place
    to_check = [*path.rglob("*.py")] if path.is_dir() else [path]
    for file in to_check:
        imported = imports(file)
        assert not imported & IMPURE, file
        to_check += {ours[module] for module in imported & set(ours)} - {*to_check}


def test_only_the_locust_files_import_locust() -> None:
    importing = {
        str(file.relative_to(ROOT))
        for file in modules("loadtests").values()
        if any(name.split(".")[0] == "locust" for name in imports(file))
    }
    assert importing == LOCUST_FILES


def test_what_is_slow_to_import_waits_until_it_is_needed() -> None:
    """A command that draws or compares would wait for it longer than for anything else that it imports."""
    for file in modules("loadtests").values():
        assert not imports(file, at_once=True) & {"seaborn", "scipy.stats"}, file


def test_third_party_packages_of_the_chat_are_few() -> None:
    outside = {name.split(".")[0] for file in modules("chat").values() for name in imports(file)}
    assert outside - set(sys.stdlib_module_names) == {"chat", "msgspec", "precis_i18n", "prompt_toolkit"}

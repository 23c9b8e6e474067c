"""Fixtures that several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_helpers import Clients, ServerProcess, server_process
from hub_helpers import Hall
from session_helpers import new_session

from chat.client.session import ClientSession

pytest_plugins = ["left_out", "undisturbed", "pytester"]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with server_process() as server:
        yield server


@pytest.fixture
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    # What is not called test_… runs in virtual time alone (test_in_virtual_time.py).
    is_marked = request.node.get_closest_marker("realtime") or not request.path.name.startswith("test_")
    assert is_marked, "depends on real time, and must say so: pytest.mark.realtime"
    with Clients() as clients:
        yield clients


@pytest.fixture
def hall() -> Hall:
    return Hall()


@pytest.fixture
def session() -> ClientSession:
    return new_session()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where received files go."""
    return tmp_path / "in"

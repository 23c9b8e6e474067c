"""What a received file is called, whatever its sender calls it: Files in chat/README.md."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.client.files.states import NAME_BYTES, numbered, safe_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a.tar.gz", "a.tar.gz"),
        ("noël.txt", "noël.txt"),
        ("noe\u0308l.txt", "noël.txt"),
        ("nul", "_nul"),
        ("aux .txt", "_aux.txt"),
        ("com1.log", "_com1.log"),
        ("COM¹", "_COM¹"),
        ("conin$", "_conin$"),
        ("a?b*c.txt", "a_b_c.txt"),
        (" .. ", "file"),
        ("\ud800", "_"),
        ("a." + "b" * 300, ("a." + "b" * 300)[:NAME_BYTES]),
        ("a" * 300 + ".txt", "a" * (NAME_BYTES - 4) + ".txt"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=300))
def test_a_safe_name_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert "/" not in safe
    assert "\\" not in safe
    assert safe.isprintable()
    assert not safe.startswith(".")
    assert 1 <= len(safe.encode()) <= NAME_BYTES
    assert safe_name(safe) == safe


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [("a.txt", 0, "a.txt"), ("a.txt", 2, "a (2).txt"), ("noextension", 1, "noextension (1)")],
)
def test_numbered_names(name: str, number: int, expected: str) -> None:
    assert numbered(name, number) == expected

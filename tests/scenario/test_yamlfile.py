"""Quantities with units, and YAML errors that name file, line, key and what is allowed."""

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from loadtests.config.units import BitsPerSecond, ByteCount, PerSecond, Quantity, Ratio, Seconds
from loadtests.config.yamlfile import Document
from loadtests.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Seconds, "50ms", 0.05),
        (Seconds, "2 s", 2.0),
        (Seconds, "1.5min", 90.0),
        (Seconds, "1h", 3600.0),
        (Seconds, "0", 0.0),
        (BitsPerSecond, "5mbit", 5e6),
        (BitsPerSecond, "384kbit", 384e3),
        (Ratio, "1.5%", 0.015),
        (Ratio, "100%", 1.0),
        (ByteCount, "64KiB", 65536),
        (ByteCount, "120B", 120),
        (PerSecond, "30/min", 0.5),
        (PerSecond, "36/h", 0.01),
    ],
)
def test_quantity_is_decoded_to_its_base_unit(kind: type[Quantity], text: str, value: float) -> None:
    assert kind.from_yaml(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(Seconds, "50"), (Seconds, "50mbit"), (Seconds, "-1s"), (Ratio, "101%"), (Ratio, "0.5"), (ByteCount, ["1B"])],
)
def test_quantity_without_its_unit_is_refused_with_what_is_allowed(kind: type[Quantity], text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a .* such as"):
        kind.from_yaml(text)


class Inner(msgspec.Struct):
    rate: PerSecond = PerSecond(1)
    arrival: Literal["poisson", "constant"] = "poisson"
    is_new: bool = False


class Outer(msgspec.Struct):
    name: str = ""
    inner: Inner = msgspec.field(default_factory=Inner)
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    steps: list[Inner] = msgspec.field(default_factory=list)
    loss: Ratio | Inner = Ratio(0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {rat: 1/s}", "f.yaml:1: inner.rat: unknown key; did you mean 'rate'? allowed: rate, arrival, is_new"),
        ("counts: {A: 1}\ninner:\n  rate: 3", "f.yaml:3: inner.rate: expected a rate of events"),
        ("inner: {arrival: x}", "f.yaml:1: inner.arrival: expected one of: poisson, constant; got 'x'"),
        ("counts: {A: many}", "f.yaml:1: counts.A: expected a whole number, got 'many'"),
        ("counts: {A: [1]}", "f.yaml:1: counts.A: expected a whole number, got ['1']"),
        ("counts: {A: {}}", "f.yaml:1: counts.A: expected a whole number, got {}"),
        ("name: [a]", "f.yaml:1: name: expected a text, got ['a']"),
        ("counts: 3", "f.yaml:1: counts: expected a mapping, got '3'"),
        ("steps:\n- rate: 1/s\n- rate: fast", "f.yaml:3: steps.1.rate: expected a rate of events"),
        ("loss: 2", "f.yaml:1: loss: expected a percentage"),
        ("loss: {arrival: 2}", "f.yaml:1: loss.arrival: expected one of"),
        ("loss: [1]", "f.yaml:1: loss: expected a percentage from 0% to 100% such as 1.5%, or a mapping; got ['1']"),
        ("inner: {is_new: yes}", "f.yaml:1: inner.is_new: expected true or false, got 'yes'"),
        ("inner: [", "f.yaml:1: not valid YAML"),
        ("name: a\nnote: \x1b[2J", "f.yaml:2: not valid YAML: U+001B is not allowed in it"),
        (r'steps: "\Uffffffff"', "f.yaml: not valid YAML: a number in it"),
        (r'inner: {arrival: "\ud800"}', "f.yaml:1: an escape stands for half a character"),
        (r'inner: {arrival: "\e]0;title\a"}', "f.yaml:1: an escape stands for half a character, or for a control"),
        (r'"a\0b": 1', "f.yaml:1: an escape stands for half a character, or for a control"),
        ("inner: {}\ninner: {}", "f.yaml:2: inner: duplicate key"),
        ("just text", "f.yaml: expected a mapping with keys from"),
    ],
)
def test_errors_name_file_line_key_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Document.parse(text, "f.yaml").convert(Outer)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_scalars_are_never_guessed_by_yaml() -> None:
    assert Document.parse("counts: {no: 10}", "f.yaml").convert(Outer).counts == {"no": 10}


def test_replaced_value_is_blamed_on_who_said_it() -> None:
    document = Document.parse("inner: {rate: 1/s}", "f.yaml").replaced("inner.rate", "fast", "--set inner.rate=fast")
    with pytest.raises(ConfigError, match=r"^--set inner.rate=fast: inner.rate: expected a rate"):
        document.convert(Outer)


def test_replacing_leaves_the_original_alone() -> None:
    document = Document.parse("inner: {rate: 1/s}\nsteps: [{rate: 1/s}]", "f.yaml")
    changed = document.replaced("inner.rate", "5/s", "x").replaced("steps.0.rate", "6/s", "x").convert(Outer)
    assert (changed.inner.rate, changed.steps[0].rate) == (5, 6)
    assert document.convert(Outer).inner.rate == 1


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("counts.A.b", "counts.A is '1', not a mapping"),
        ("counts.A.b.c", "counts.A is '1', not a mapping"),
        ("steps.7.rate", "steps is a list of 0, counted from 0"),
        ("steps.rate", "steps is a list of 0, counted from 0"),
    ],
)
def test_replacing_inside_something_that_has_no_inside_is_refused(key: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"^--set: '{key}' leads nowhere: {reason}$"):
        Document.parse("counts: {A: 1}\nsteps: []", "f.yaml").replaced(key, "1", "--set")


def test_nested_aliases_are_refused_before_they_fill_the_memory() -> None:
    """Ten lines that stand for ten to the power of nine values, and a list that contains itself."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 9):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    with pytest.raises(ConfigError, match=r"^bomb.yaml:\d+: more than 20000 values, once aliases"):
        Document.parse(bomb, "bomb.yaml")
    with pytest.raises(ConfigError, match=r"^loop.yaml:1: a.0.0…: nested more than 32 deep$"):
        Document.parse("a: &a [*a]", "loop.yaml")


def test_deep_nesting_is_refused() -> None:
    for depth in (40, 100_000):
        with pytest.raises(ConfigError, match="nested more than 32 deep"):
            Document.parse("[" * depth + "]" * depth, "deep.yaml")


def test_a_file_that_is_no_page_of_text_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(ConfigError, match="larger than the 1048576 bytes"):
        Document.read(large)

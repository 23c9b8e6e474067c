"""YAML files decoded into msgspec Structs, with errors that name file, line, key and what is allowed.

Scalars are read as text and decoded by the type of the field, so YAML's own guesses (`no` is false, `1:30` is 90)
never apply.
"""

import copy
import difflib
import types
import typing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from chat.words import NO_TEXT, brief, reason_of
from loadtests.errors import ConfigError

#: A scenario is a page of text. A file that is larger, or means more than this once its aliases are followed, is no
#: scenario: a few lines of nested aliases can stand for more than any memory holds.
MAX_FILE_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 32

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

#: msgspec's words → ours; what was got is told as it was written.
_PLAIN_WORDS = {
    ", got `str`": "",
    ", got `array`": "",
    ", got `object`": "",
    "Expected": "expected",
    "`str`": "a text",
    "`int`": "a whole number",
    "`float`": "a number",
    "`bool`": "true or false",
}


def dotted(path: KeyPath) -> str:
    """`('messages', 'rate')` as a user writes it: `messages.rate`."""
    return ".".join(str(part) for part in path)


class Misfit(ValueError):
    """The value of a key does not go with those of others in the same mapping."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


@dataclass(frozen=True)
class Document:
    """The plain tree (dict, list, str) of a YAML file, and where each of its keys is."""

    name: str
    data: Any
    origins: dict[KeyPath, str]
    #: What it is called in results.
    title: str

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Raises ConfigError: the file is missing, unreadable, empty, or not YAML."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise ConfigError(f"{path}: larger than the {MAX_FILE_BYTES} bytes that such a file may have")
            text = data.decode()
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {reason_of(error)}") from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ConfigError(f"{path}:{line}: cannot be read: this line is not UTF-8 text") from None
        document = cls.parse(text, str(path))
        if not text.strip() or document.data == {}:
            raise ConfigError(f"{path}: the file is empty")
        return document

    @classmethod
    def parse(cls, text: str, name: str) -> "Document":
        """Raises ConfigError: the text is not YAML, has a key twice, is nested too deeply or means too much."""
        try:
            root = yaml.compose(text, Loader=yaml.BaseLoader)
        except RecursionError:
            raise ConfigError(f"{name}: nested more than {MAX_DEPTH} deep") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}:{line}: not valid YAML: {brief(str(error.problem))}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise ConfigError(f"{name}:{line}: not valid YAML: U+{error.character:04X} is not allowed in it") from None
        except (ValueError, OverflowError):  # "\\Uffffffff"
            raise ConfigError(
                f"{name}: not valid YAML: a number in it, as of an escaped character, is too large"
            ) from None
        origins: dict[KeyPath, str] = {(): name}
        data = {} if root is None else _plain(root, (), name, origins)
        return cls(name, data, origins, Path(name).stem)

    def replaced(self, key: str, value: Any, origin: str) -> "Document":
        """A copy in which the dotted `key` has `value`, said by `origin` (an option, or another key).

        Raises ConfigError: the key leads through something that is not a mapping or a list.
        """
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        data = copy.deepcopy(self.data)
        place = data
        for depth, part in enumerate(path[:-1]):
            if isinstance(place, dict):
                place = place.setdefault(part, {})
            elif isinstance(place, list) and isinstance(part, int) and part < len(place):
                place = place[part]
            else:
                raise _leads_nowhere(origin, key, path[:depth], place)
        try:
            place[path[-1]] = value
        except (TypeError, IndexError):
            raise _leads_nowhere(origin, key, path[:-1], place) from None
        origins = {known: said for known, said in self.origins.items() if known[: len(path)] != path}
        new = {path[:length]: origin for length in range(1, len(path) + 1)}
        return replace(self, data=data, origins=new | origins)

    def convert(self, kind: type[T], path: KeyPath = ()) -> T:
        """The part of the document at `path`, decoded as `kind`; raises ConfigError at the first wrong value."""
        part = self.data
        for step in path:
            part = part[step]
        return typing.cast("T", self._decode(kind, part, path))

    def error(self, path: KeyPath, problem: str) -> ConfigError:
        """An error at `path`, or at the nearest key above it whose place is known."""
        known = path
        while known not in self.origins:
            known = known[:-1]
        key = f"{brief(dotted(path))}: " if path else ""
        return ConfigError(f"{self.origins[known]}: {key}{brief(problem)}")

    def _decode(self, kind: Any, value: Any, path: KeyPath) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return self._decode_union(arguments, value, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self._decode_struct(kind, value, path)
        if origin is dict:
            if not isinstance(value, dict):
                raise self.error(path, f"expected a mapping, got {value!r}")
            return {key: self._decode(arguments[1], item, (*path, key)) for key, item in value.items()}
        if origin is list:
            if not isinstance(value, list):
                raise self.error(path, f"expected a list, got {value!r}")
            return [self._decode(arguments[0], item, (*path, index)) for index, item in enumerate(value)]
        return self._decode_leaf(kind, value, path)

    def _decode_union(self, kinds: tuple[Any, ...], value: Any, path: KeyPath) -> Any:
        """A mapping goes to the union's Struct or dict, a list to its list, a text to the first kind that takes it."""
        shaped: dict[type, list[Any]] = {dict: [], list: [], str: []}
        for kind in kinds:
            base = typing.get_origin(kind) or kind
            is_mapping = base is dict or (isinstance(base, type) and issubclass(base, msgspec.Struct))
            shaped[dict if is_mapping else list if base is list else str].append(kind)
        fitting = [kind for kind in shaped.get(type(value), []) if kind is not types.NoneType]
        taken = [getattr(kind, "expected", "a text") for kind in shaped[str] if kind is not types.NoneType]
        taken += [name for shape, name in ((dict, "a mapping"), (list, "a list")) if shaped[shape]]
        failure = self.error(path, f"expected {', or '.join(taken)}; got {value!r}")
        for kind in fitting:
            try:
                return self._decode(kind, value, path)
            except ConfigError as error:
                failure = error
        raise failure

    def _decode_struct(self, kind: type[msgspec.Struct], value: Any, path: KeyPath) -> Any:
        hints = typing.get_type_hints(kind, include_extras=True)
        allowed = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        if not isinstance(value, dict):
            raise self.error(path, f"expected a mapping with keys from: {', '.join(allowed)}; got {value!r}")
        for key in value:
            if key not in allowed:
                close = difflib.get_close_matches(str(key), allowed, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise self.error((*path, key), f"unknown key; {hint}allowed: {', '.join(allowed)}")
        for key, field in allowed.items():
            if field.required and key not in value:
                raise self.error(path, f"the key {key!r} is missing")
        decoded = {
            allowed[key].name: self._decode(hints[allowed[key].name], item, (*path, key)) for key, item in value.items()
        }
        try:
            return kind(**decoded)
        except ValueError as error:  # raised by __post_init__: keys that are right each but not together
            blamed = (error.key,) if isinstance(error, Misfit) else ()
            raise self.error((*path, *blamed), str(error)) from None

    def _decode_leaf(self, kind: Any, value: Any, path: KeyPath) -> Any:
        try:
            if hasattr(kind, "from_yaml"):
                return kind.from_yaml(value)
            return msgspec.convert(value, kind, strict=False)
        except ValueError as error:  # msgspec.ValidationError is one
            if typing.get_origin(kind) is typing.Literal:
                raise self.error(path, f"expected one of: {', '.join(typing.get_args(kind))}; got {value!r}") from None
            said = str(error)
            for technical, plain in _PLAIN_WORDS.items():
                said = said.replace(technical, plain)
            raise self.error(path, said if repr(value) in said else f"{said}, got {value!r}") from None


def _leads_nowhere(origin: str, key: str, path: KeyPath, found: Any) -> ConfigError:
    what = f"a list of {len(found)}, counted from 0" if isinstance(found, list) else f"{found!r}, not a mapping"
    return ConfigError(f"{origin}: {key!r} leads nowhere: {dotted(path)} is {brief(what)}")


def _plain(node: yaml.Node, path: KeyPath, name: str, origins: dict[KeyPath, str]) -> Any:
    """The node's plain value; the line of each key is noted in `origins` on the way.

    An alias is expanded wherever it stands, so each of its places has a path, and their number is what is bounded.
    """
    origins.setdefault(path, f"{name}:{node.start_mark.line + 1}")
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{origins[path]}: {brief(dotted(path[:3]))}…: nested more than {MAX_DEPTH} deep")
    if len(origins) > MAX_NODES:
        raise ConfigError(f"{origins[path]}: more than {MAX_NODES} values, once aliases (*name) are followed")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            where = f"{name}:{key_node.start_mark.line + 1}"
            key = _text(key_node, where)
            if key in mapping:
                raise ConfigError(f"{where}: {brief(dotted((*path, key)))}: duplicate key")
            origins[(*path, key)] = where
            mapping[key] = _plain(value_node, (*path, key), name, origins)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), name, origins) for index, item in enumerate(node.value)]
    return _text(node, origins[path])


def _text(node: yaml.Node, where: str) -> str:
    text = str(node.value)
    if NO_TEXT.search(text):
        raise ConfigError(
            f"{where}: an escape stands for half a character, or for a control character: {brief(repr(text))}"
        )
    return text

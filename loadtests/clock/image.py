"""The file system of a virtual machine: one archive of fixed content and order, whoever makes it and wherever.

Programs start the same number of nanoseconds after boot only if every file lies at the same path, in the same order and
with the same attributes. So nothing is read from the host's own folders: Python, the packages that a load needs, this
project, `ip` and `tc` are copied into an initramfs (kernel documentation, "initramfs buffer format") under fixed paths.
"""

import contextlib
import hashlib
import importlib.util
import pickle
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import BinaryIO, NamedTuple

from loadtests.clock.kept import kept
from loadtests.data import SCENARIOS
from loadtests.errors import HarnessError

#: Where things are inside.
PYTHON, PACKAGES, PROJECT = "python", "packages", "project"
#: Packages whose import the load, the links or the tables of a trial need; what they need comes with them.
_DISTRIBUTIONS = ("chatlab", "locust", "PyYAML", "rich", "psutil", "pandas")
_PROGRAMS = ("ip", "tc")
#: What captures packets (`--capture`), where it is installed.
CAPTURE = "dumpcap"
#: Of Python's library, what no trial imports.
_LEFT_OUT = {
    "__pycache__",
    "site-packages",
    "test",
    "tests",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "tkinter",
    "turtledemo",
}
_COMPILE = """
import marshal, pickle, sys
sources = pickle.load(sys.stdin.buffer)
codes = [marshal.dumps(compile(content, "/" + name, "exec", dont_inherit=True)) for name, content in sources]
pickle.dump(codes, sys.stdout.buffer)
"""
_FOLDERS = ("dev", "etc", "host", "proc", "run", "sys", "tmp", "var", "root")


class File(NamedTuple):
    """One entry of the archive."""

    #: Path inside, without a leading slash.
    name: str
    mode: int
    content: bytes


def image(folder: Path, project: Path) -> contextlib.AbstractContextManager[tuple[Path, str]]:
    """The image of this project as it is now, and the SHA-256 of its content; nobody removes it meanwhile.

    It is kept below `folder`, about 300 MB, and made anew (10 seconds) when anything that is in it has changed.

    Args:
        project: the folder that holds `chat` and `loadtests`.

    Raises HarnessError: a program or a package is missing here.
    """
    return kept(folder / "images", _key(project), lambda archive: _write_cpio(archive, _files(project)))


def _key(project: Path) -> str:
    """What the content follows from: the project's files, the packages, Python, and Debian's programs."""
    key = hashlib.sha256(sys.version.encode())
    for name, file in sorted(_project_files(project)):
        key.update(name.encode() + b"\0" + file.read_bytes())
    for package in sorted(_closure(_DISTRIBUTIONS), key=lambda package: package.name):
        key.update(f"{package.name}=={package.version}\n".encode())
    for program in (Path(sys.executable), *_programs()):
        key.update(program.read_bytes())
    return key.hexdigest()[:16]


def _files(project: Path) -> list[File]:
    """Everything that a trial needs, sorted by path."""
    found: dict[str, Path] = {}
    library = Path(sysconfig.get_path("stdlib"))
    for file in _python_files(library):
        found[f"{PYTHON}/lib/{library.name}/{file.relative_to(library)}"] = file
    executable = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}").resolve()
    found[f"{PYTHON}/bin/python3"] = executable
    for package in _closure(_DISTRIBUTIONS):
        for name, file in _installed(package):
            found[f"{PACKAGES}/{name}"] = file
    for name, file in _project_files(project):
        found[f"{PROJECT}/{name}"] = file
    programs = _programs()
    for program in programs:
        found[f"bin/{program.name}"] = program
    for table in [*Path("/usr/lib/tc").glob("*.dist"), *Path("/usr/lib").glob("*/tc/*.dist")]:  # by Debian's version
        found[str(table)[1:]] = table
    native = [file for file in found.values() if re.search(r"\.so(\.\d+)*$", file.name)]
    for needed in _shared_libraries([executable, *programs, *native]):
        if needed.is_relative_to("/lib") or needed.is_relative_to("/lib64") or needed.is_relative_to("/usr/lib"):
            found.setdefault(str(needed)[1:], needed)
        elif needed.is_relative_to(sys.base_prefix):
            found.setdefault(f"{PYTHON}/lib/{needed.name}", needed)
    files = [File(name, _mode(file), file.read_bytes()) for name, file in found.items()]
    files += _compiled([file for file in sorted(files) if file.name.endswith(".py")])
    folders = [File(name, stat.S_IFDIR | 0o755, b"") for name in _folders(files)]
    return sorted([*folders, *files], key=lambda file: file.name)


def _compiled(sources: list[File]) -> list[File]:
    """What Python would write beside the sources; never compared with their times (PEP 552, unchecked).

    What `marshal` writes depends on what else the process knows (CPython issue 78274), so a process does it that knows
    nothing else.
    """
    words = [sys.executable, "-S", "-c", _COMPILE]
    child = subprocess.run(
        words,
        input=pickle.dumps([(source.name, source.content) for source in sources]),
        stdout=subprocess.PIPE,
        env={"PYTHONHASHSEED": "0"},
        check=True,
    )
    codes: list[bytes] = pickle.loads(child.stdout)
    found = []
    for source, code in zip(sources, codes, strict=True):
        header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source.content)
        found.append(File(importlib.util.cache_from_source(source.name), stat.S_IFREG | 0o644, header + code))
    return found


def _project_files(project: Path) -> Iterator[tuple[str, Path]]:
    for folder in (project / "chat", project / "loadtests", SCENARIOS):
        for file in _python_files(folder):
            yield f"{folder.name}/{file.relative_to(folder)}", file


def _folders(files: Iterable[File]) -> set[str]:
    parents = {str(parent) for file in files for parent in Path(file.name).parents}
    return (parents | set(_FOLDERS)) - {"."}


def _mode(file: Path) -> int:
    return stat.S_IFREG | (0o755 if file.stat().st_mode & 0o111 else 0o644)


def _python_files(folder: Path) -> Iterator[Path]:
    for file in folder.rglob("*"):
        if file.is_file() and not _LEFT_OUT & set(file.relative_to(folder).parts):
            yield file


def _closure(names: Iterable[str]) -> list[Distribution]:
    """The packages and all that they require here (extras left out)."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        required = [line for line in found[name].requires or () if "extra ==" not in line]
        waiting += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required]
    del found["chatlab"]  # whose files are those of the project
    return list(found.values())


def _installed(package: Distribution) -> Iterator[tuple[str, Path]]:
    for entry in package.files or ():
        file = Path(str(package.locate_file(entry)))
        # RECORD has the checksums of commands whose first line names the folder of this environment.
        if ".." in entry.parts or _LEFT_OUT & set(entry.parts) or entry.name == "RECORD" or not file.is_file():
            continue
        yield str(entry), file


def _programs() -> list[Path]:
    capture = shutil.which(CAPTURE)
    return [*map(_program, _PROGRAMS), *([Path(capture)] if capture else [])]


def _program(name: str) -> Path:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise HarnessError(f"{name} is missing, which the virtual machine needs; on Debian: apt-get install iproute2")
    return Path(found)


def _shared_libraries(files: Iterable[Path]) -> set[Path]:
    """What the dynamic linker loads for them, itself included (`ldd`)."""
    listing = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    return {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", listing, flags=re.MULTILINE)}


def _write_cpio(archive: BinaryIO, files: Iterable[File]) -> None:
    """The "newc" format: a header of hexadecimal numbers, the name, the content, each padded to four bytes."""

    def put(number: int, file: File) -> None:
        links = 2 if stat.S_ISDIR(file.mode) else 1
        name = file.name.encode() + b"\0"
        fields = (number, file.mode, 0, 0, links, 0, len(file.content), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        archive.write(header + bytes(-len(header) % 4))
        archive.write(file.content + bytes(-len(file.content) % 4))

    for number, file in enumerate(files, 1):
        put(number, file)
    put(0, File("TRAILER!!!", 0, b""))

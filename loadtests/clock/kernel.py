"""The kernel of virtual time: user-mode Linux with time travel, built from Debian's source into the user's cache.

Debian's own `user-mode-linux` is built without it. Nothing is installed outside the cache, and only a finished kernel
is moved to where :func:`built` looks for it, so that a build that was interrupted goes on where it was.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from loadtests.errors import HarnessError

_HERE = Path(__file__).parent
_SOURCE = "linux-source-6.12"
#: Program → Debian package.
_TOOLS = {
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc",
    "make": "make",
    "patch": "patch",
    "setarch": "util-linux",
    "xz": "xz-utils",
}
#: Two builds with one compiler are to be the same file: a kernel says when and by whom it was built, and its
#: configuration names tools that it does not need but finds.
_REPEATABLE = (
    "KBUILD_BUILD_TIMESTAMP=2024-01-01",
    "KBUILD_BUILD_USER=chatlab",
    "KBUILD_BUILD_HOST=chatlab",
    "RUSTC=false",
    "BINDGEN=false",
    "PAHOLE=false",
)
PLAN = (
    f"Downloads Debian's {_SOURCE} (about 155 MB) and builds a kernel of 8 MB from it: 3 to 6 minutes on two cores, "
    "2 GB of disk space until it is done."
)


def cache() -> Path:
    """Where kernels and images are kept (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatlab" / "clock"


def built() -> Path:
    """The kernel; raises HarnessError: it is not built, or cannot run here."""
    _check_processor()
    kernel = _place() / "linux"
    if not kernel.exists():
        raise HarnessError("virtual time needs a kernel of its own, which is not built yet: chatlab clock build")
    stamp = _place() / "sha256"
    if hashlib.sha256(kernel.read_bytes()).hexdigest() != stamp.read_text():
        raise HarnessError(f"{kernel} is not the file that was built: remove it, then: chatlab clock build")
    return kernel


def build() -> Path:
    """Build the kernel unless it is there; returns where it is.

    Raises HarnessError: a tool is missing, or a step of the build failed; its output is in the file that is named.
    """
    _check_processor()
    if (_place() / "sha256").exists():
        return built()
    folder = _place().with_suffix(".build")
    log = folder / "log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
    except OSError as error:
        raise HarnessError(f"{error.filename}: {error.strerror}; XDG_CACHE_HOME names another folder") from None
    _need_tools()
    tree, objects = folder / _SOURCE, folder / "objects"
    if not (folder / "unpacked").exists():
        print("downloading the source …", flush=True)
        archive = _source_archive(folder, log)
        shutil.rmtree(tree, ignore_errors=True)
        _step(["tar", "-xf", str(archive)], folder, log)
        _step(["patch", "-p1", "-i", str(_HERE / "kernel.patch")], tree, log)
        (folder / "unpacked").touch()
    print("building the kernel …", flush=True)
    make = ["make", "-s", "ARCH=um", f"O={objects}", f"-j{os.cpu_count() or 1}", *_REPEATABLE]
    _step([*make, f"KCONFIG_ALLCONFIG={_HERE / 'kernel.config'}", "allnoconfig"], tree, log)
    _step([*make, "linux"], tree, log)
    _install(objects / "linux")
    shutil.rmtree(folder)
    return built()


def _check_processor() -> None:
    if platform.machine() != "x86_64":
        raise HarnessError(f"virtual time needs an x86-64 processor; this one is {platform.machine()}")


def _place() -> Path:
    """The folder of a kernel made from this configuration and these changes."""
    recipe = "".join((_SOURCE, *_REPEATABLE)).encode() + b"".join(
        (_HERE / name).read_bytes() for name in ("kernel.config", "kernel.patch")
    )
    return cache() / f"kernel-{hashlib.sha256(recipe).hexdigest()[:12]}"


def _install(kernel: Path) -> None:
    draft = _place().with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    shutil.copy(kernel, draft)
    subprocess.run(["strip", draft / "linux"], check=True)
    (draft / "sha256").write_text(hashlib.sha256((draft / "linux").read_bytes()).hexdigest())
    draft.rename(_place())


def _need_tools() -> None:
    search_path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=search_path) is None})
    if not Path("/usr/include/stdio.h").exists():
        missing.append("libc6-dev")
    if not missing:
        return
    if os.geteuid() != 0 or "apt" in missing:
        remedy = f"on Debian: sudo apt-get install {' '.join(missing)}"
        raise HarnessError(f"building the kernel needs what is not installed here; {remedy}")
    print(f"installing {', '.join(missing)} …", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if subprocess.run(install, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        raise HarnessError(f"apt-get could not install {' '.join(missing)}")


def _source_archive(folder: Path, log: Path) -> Path:
    """The archive of the source, from the package that apt verifies by Debian's signatures."""
    installed = Path("/usr/src", f"{_SOURCE}.tar.xz")
    if installed.exists():
        return installed
    _step(["apt-get", "download", "-q", _SOURCE], folder, log)
    package = max(folder.glob(f"{_SOURCE}_*.deb"))
    _step(["dpkg-deb", "-x", package.name, "package"], folder, log)
    return folder / "package" / installed.relative_to("/")


def _step(command: list[str], folder: Path, log: Path) -> None:
    with log.open("ab") as output:
        code = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode
    if code:
        raise HarnessError(f"{command[0]} failed with exit code {code}; its output is in {log}")

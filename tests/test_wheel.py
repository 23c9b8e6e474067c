"""What somebody has who installs the wheel: in an environment of its own, away from the clone."""

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from run_helpers import assert_finished

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
#: What `pip install chatlab` brings along; symbolic links to what is installed here spare the network.
CHAT_NEEDS = ("msgspec", "prompt_toolkit", "wcwidth", "precis_i18n", "confusable_homoglyphs")
TINY = ["--set", "vary={}", "--set", "warmup=0s", "--set", "stages=[{users: 2, duration: 1s}]"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(autouse=True)
def no_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PYTHONPATH names a clone, nothing of the wheel would be tried."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


class Environment:
    """A virtual environment with the wheel, whose commands are called in an empty folder."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.cwd = folder / "empty"
        self.cwd.mkdir()
        venv.create(folder / "env", symlinks=True)
        self.bin = folder / "env" / "bin"
        self.packages = next((folder / "env").glob("lib/python*/site-packages"))
        pip = [sys.executable, "-m", "pip", "--python", self.bin / "python", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", "--no-index", "--no-deps", "--no-compile", wheel], check=True)

    def run(self, command: str, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        words = [self.bin / command, *arguments]
        return subprocess.run(
            words, cwd=self.cwd, input=stdin, capture_output=True, text=True, timeout=100, check=False
        )


def test_who_only_chats_needs_no_harness(tmp_path: Path, wheel: Path) -> None:
    environment = Environment(tmp_path, wheel)
    here = Path(site.getsitepackages()[0])
    for package in CHAT_NEEDS:
        (environment.packages / package).symlink_to(here / package)
    with subprocess.Popen(
        [environment.bin / "chat-server", "--port", "0"], stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        port = server.stderr.readline().strip().rpartition(":")[2]
        chatted = environment.run("chat-client", "Zoé", "--port", port, stdin="hello\n")
        server.terminate()
    assert (chatted.returncode, chatted.stderr) == (0, "")
    assert "Zoé: hello  (" in chatted.stdout
    refused = environment.run("chatlab", "check", "demo")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "chatlab: yaml is not installed, which this command needs: pip install 'chatlab[load]'\n"
    version = environment.run("chat-client", "--version").stdout
    revision = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    if revision.returncode == 0:
        assert version.endswith(f"(git {revision.stdout.strip()})\n")
    files = [path for path in environment.packages.rglob("*") if path.is_file()]
    for package in CHAT_NEEDS:
        files += [path for path in (here / package).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6


@pytest.mark.realtime("runs")
def test_demo_from_an_empty_folder(tmp_path: Path, wheel: Path) -> None:
    """Scenario, links, locustfile and notebook are those of the wheel; what comes of them lands in `./results`."""
    environment = Environment(tmp_path, wheel)
    (environment.packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    (environment.bin.parent / "share").symlink_to(Path(sys.prefix) / "share")  # templates of the report
    listed = environment.run("chatlab", "profiles")
    assert listed.returncode == 0
    assert "lossy-wifi" in listed.stdout
    locustfile = Path(environment.run("chatlab", "locustfile").stdout.strip())
    assert locustfile.is_relative_to(environment.packages)
    assert locustfile.is_file()
    done = environment.run("chatlab", "run", "demo", *TINY)
    assert_finished(done.returncode, done.stdout + done.stderr)
    assert os.listdir(environment.cwd) == ["results"]
    assert next(environment.cwd.glob("results/*-demo/report.html")).stat().st_size > 100_000

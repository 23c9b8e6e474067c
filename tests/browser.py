"""A headless Chromium, driven over a pipe by the DevTools protocol; what it would load from elsewhere is noted."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

_PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: Of a test in need of one.
needs_browser = pytest.mark.skipif(_PROGRAM is None, reason="no Chromium here: apt-get install chromium")


class Browser:
    """One page."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._numbers = itertools.count(1)
        #: Addresses that the page asked for.
        self.requested: list[str] = []
        self._left = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")

    _session = ""

    def close(self) -> None:
        self._commands.close()
        self._answers.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer of the browser to a command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def resize(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def open(self, address: str) -> None:
        """Return when the page has loaded."""
        self.call("Page.navigate", url=address)
        self.evaluate("new Promise(r => document.readyState == 'complete' ? r() : addEventListener('load', () => r()))")

    def evaluate(self, script: str) -> Any:
        """What the expression comes to in the page, also if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> Any:
        """The first value of the expression that is true, looked at whenever the page changes."""
        return self.evaluate(
            "new Promise(done => { const look = () => { const value = "
            + condition
            + "; if (value) { watch.disconnect(); "
            "done(value) } }; const watch = new MutationObserver(look); watch.observe(document, {childList: true, "
            "subtree: true, characterData: true}); look() })"
        )

    def _next(self) -> dict[str, Any]:
        """The next message of the browser."""
        while b"\0" not in self._left:
            part = os.read(self._answers.fileno(), 1 << 20)
            assert part, "the browser has ended"
            self._left += part
        text, self._left = self._left.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])
        return message


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, without a cache or a past; nothing is left of it."""
    assert _PROGRAM
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        # DevTools reads from descriptor 3 and writes to 4.
        command = f'exec 3<&{in_read} 4>&{out_write}; exec "$@"'
        process = subprocess.Popen(
            ["/bin/bash", "-c", command, "sh", _PROGRAM, *options],
            pass_fds=(in_read, out_write),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(in_read)
        os.close(out_write)
        opened = None
        try:
            opened = Browser(in_write, out_read)
            yield opened
        finally:
            if opened:
                opened.close()
            process.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()

"""A real Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

START_SECONDS = 30.0


class Browser:
    """One page. Use as `async with Browser() as page`."""

    async def __aenter__(self) -> Browser:
        self._folder = Path(tempfile.mkdtemp(prefix="launch-browser-"))
        self._process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--remote-debugging-port=0",
             f"--user-data-dir={self._folder}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port_file = self._folder / "DevToolsActivePort"
        deadline = time.monotonic() + START_SECONDS
        while not port_file.exists() or not port_file.read_text().strip():
            assert time.monotonic() < deadline and self._process.poll() is None
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            pages = [each for each in await answer.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=0
        )
        self._numbers = itertools.count(1)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        await self._socket.close()
        await self._session.close()
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def open(self, url: str) -> None:
        await self._call("Page.navigate", url=url)

    async def text(self) -> str:
        """What a person reads on the page."""
        return str(await self._evaluate("document.body ? document.body.innerText : ''"))

    async def wait_for(self, words: str, seconds: float = 30) -> str:
        deadline = time.monotonic() + seconds
        while words not in (text := await self.text()):
            assert time.monotonic() < deadline, f"no {words!r} on the page: {text[:2000]}"
            await asyncio.sleep(0.3)
        return text

    async def type_into(self, selector: str, text: str) -> None:
        await self._evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        await self._call("Input.insertText", text=text)

    async def click(self, words: str) -> None:
        """The button that says so."""
        await self._evaluate(
            "[...document.querySelectorAll('button')]"
            f".find(b => b.innerText.toLowerCase().includes({json.dumps(words.lower())})).click()"
        )

    async def _evaluate(self, expression: str) -> Any:
        while True:
            answer = await self._call("Runtime.evaluate", expression=expression, returnByValue=True)
            if "result" in answer:
                assert "exceptionDetails" not in answer["result"], answer
                return answer["result"]["result"].get("value")
            await asyncio.sleep(0.1)  # between two pages there is nothing to ask

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message: dict[str, Any] = await self._socket.receive_json(timeout=30)
            if message.get("id") == number:
                return message

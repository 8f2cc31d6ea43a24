"""The page ``/speak`` in Debian's Chromium, with a fake microphone that plays a file."""

from __future__ import annotations

import re
import shutil
import subprocess
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from session_support import Speech, noise

from testkit.session_memory import spoken
from testkit.waiting import wait_until


@contextmanager
def driver(folder: Path) -> Iterator[str]:
    with subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True, cwd=folder
    ) as process:
        try:
            assert process.stdout is not None
            matches = (re.search(r"successfully on port (\d+)", line) for line in process.stdout)
            port = next(match[1] for match in matches if match)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def run_in_chromium(tmp_path: Path) -> Iterator[Any]:
    """A function that runs a script in Chromium. If the caller names a page, the function opens this page first.

    The browser's microphone plays a file.
    """
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    file = tmp_path / "spoken.wav"
    with wave.open(str(file), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(noise(5))
    options = {
        "args": [
            *(
                "--headless=new",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                f"--user-data-dir={tmp_path}/chromium",
            ),
            *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
            f"--use-file-for-fake-audio-capture={file}",
        ]
    }
    capabilities = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
    with driver(tmp_path) as url, httpx2.Client(base_url=url, timeout=120, verify=False) as client:

        def send(path: str, body: dict[str, Any]) -> Any:
            response = client.post(path, json=body)
            assert response.status_code == 200, response.text
            return response.json()["value"]

        session = f"/session/{send('/session', capabilities)['sessionId']}"

        def run(script: str, page: str | None = None) -> Any:
            if page is not None:
                send(f"{session}/url", {"url": page})
            return send(f"{session}/execute/sync", {"script": script, "args": []})

        try:
            yield run
        finally:
            client.delete(session)


_OBSERVE = """
window.streams = [];
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  streams.push(await real(wanted));
  return streams.at(-1);
};
window.failures = [];
addEventListener('unhandledrejection', (event) => failures.push(String(event.reason)));
"""


def test_the_page_sends_the_microphone_and_shows_the_text_also_through_a_lost_connection(
    speech: Speech, run_in_chromium: Any
) -> None:
    run = run_in_chromium
    page = f"{speech.api.url.replace('127.0.0.1', 'localhost')}/speak"
    run(_OBSERVE, page)

    def content(name: str) -> str:
        return str(run(f"return document.getElementById('{name}').textContent"))

    wait_until(
        lambda: content("notice") == "The words of this test mean nothing.", 60, "the notice of the pool"
    )
    languages = run("return [...document.getElementById('languages').options].map((option) => option.value)")
    assert languages == ["German", "Chinese", "English"]
    run("document.getElementById('target').value = 'Klingon'; document.getElementById('start').click()")
    wait_until(lambda: "no pair en -> Klingon" in content("status"), 60, "the refusal")
    tracks = "streams[0].getTracks().map((track) => track.readyState)"
    assert run(f"return {tracks}") == ["ended"], "the browser still listens after the refusal"
    run("document.getElementById('target').value = 'zh'; document.getElementById('start').click()")

    def shown() -> str:
        return content("text")

    wait_until(lambda: len(shown().split()) >= 2, 60, "text on the page")
    run("daybreak.live.socket.close()")
    before = len(shown().split())
    wait_until(lambda: len(shown().split()) >= before + 3, 60, "more text after the lost connection")
    run("document.getElementById('stop').click()")
    wait_until(lambda: "finished" in content("status"), 60, "the end")
    (record,) = speech.store.all()
    assert (record.session.target, record.session.client) == ("zh", "the page /speak")
    audio = speech.store.audio(record.session.id)
    assert run("return daybreak.live.text") == spoken(audio)
    assert run("return failures") == []
    assert max(audio) > 0, "the microphone was silent"
    assert run("return document.getElementById('start').disabled") is False


def test_the_files_of_the_page_and_no_others_are_served(speech: Speech) -> None:
    page = speech.client.get("/speak")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in re.findall(r'(?:href|src)="(speak/[^"]+)"', page.text):
        assert speech.client.get(f"/{name}").status_code == 200
    assert speech.client.get("/speak/specs.py").status_code == 404

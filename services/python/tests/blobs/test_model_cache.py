"""Tests of the model cache: a node downloads a model once, uses only a complete one, and resumes a killed download."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from daybreak_server.adapters.blobs import model_cache, open_blobs
from daybreak_server.adapters.blobs.model_cache import ModelCache
from daybreak_server.adapters.blobs.model_source import ModelFile, S3Model
from daybreak_server.ports.blobs import BlobNotFoundError, BlobRefusedError, BlobUnavailableError
from daybreak_server.settings.tree import S3Settings

from .conftest import BUCKET, Place, s3_address, s3_client

FILES = {
    "model_index.json": 700,
    "vae/config.json": 0,
    "vae/weights a.safetensors": 3_000_001,
    "x/y/z.bin": 999_999,
}
TOTAL = sum(FILES.values())
RANGE = 256 << 10


def content(name: str) -> bytes:
    return random.Random(name).randbytes(FILES[name])


def put(place: Place) -> str:
    """Store the model on the server, and return its URL."""
    s3 = s3_client(place.address.s3.endpoint_url)
    prefix = place.address.url.removeprefix(f"s3://{BUCKET}/")
    for name in FILES:
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=content(name))
    s3.put_object(
        Bucket=BUCKET, Key=f"{prefix}/vae/", Body=b""
    )  # S3 consoles create such objects for folders
    s3.close()
    return place.address.url


class Counting(S3Model):
    """Counts the bytes that are requested from the server."""

    requested = 0

    def read(self, file: ModelFile, start: int, length: int) -> Iterator[bytes]:
        self.requested += length
        yield from super().read(file, start, length)


def fetch(model: S3Model, folder: Path) -> tuple[Path, list[tuple[int, int]]]:
    reports: list[tuple[int, int]] = []
    cache = ModelCache(folder, range_bytes=RANGE)
    return cache.get(model, on_progress=lambda done, total: reports.append((done, total))), reports


def whole(folder: Path) -> bool:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return set(paths) == set(FILES) and all(
        path.read_bytes() == content(name) for name, path in paths.items()
    )


def test_a_model_is_downloaded_once_for_each_version(s3: Place, tmp_path: Path) -> None:
    """A second call makes no request for bytes. Another version of the model is stored in another folder."""
    url = put(s3)
    model = Counting(url, s3.address.s3)
    folder, reports = fetch(model, tmp_path)
    assert whole(folder)
    assert model.requested == TOTAL
    assert reports[-1] == (TOTAL, TOTAL)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert fetch(model, tmp_path) == (folder, [])
    assert model.requested == TOTAL
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    client = s3_client(s3.address.s3.endpoint_url)
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/model_index.json", Body=b"{}")
    client.close()
    assert fetch(model, tmp_path)[0] != folder
    assert whole(folder)


CHILD = """
import os, signal, sys
from pathlib import Path
from blobs_child import Model
from daybreak_server.adapters.blobs import model_cache, open_blobs
from daybreak_server.adapters.blobs.model_cache import ModelCache
url, endpoint, folder, ranges = sys.argv[1:]
model = Model(url, endpoint, die_after=int(ranges))
cache = ModelCache(Path(folder), range_bytes=256 << 10, workers=2)
print(cache.get(model, on_progress=lambda a, b: None), model.requested)
"""


def child(place: Place, url: str, folder: Path, *, die_after: int = 0) -> subprocess.Popen[str]:
    """Start a process that downloads the model. It kills itself after ``die_after`` ranges, unless that is 0."""
    command = [
        sys.executable,
        "-c",
        CHILD,
        url,
        str(place.address.s3.endpoint_url),
        str(folder),
        str(die_after),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)


def test_a_download_continues_where_a_killed_process_stopped(s3: Place, tmp_path: Path) -> None:
    """A killed download leaves only a partial folder. The next one requests only the ranges that are missing."""
    url = put(s3)
    killed = child(s3, url, tmp_path, die_after=6)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]
    model = Counting(url, s3.address.s3)
    folder, reports = fetch(model, tmp_path)
    assert whole(folder)
    assert 0 < model.requested <= TOTAL - 4 * RANGE
    assert reports[-1] == (TOTAL, TOTAL)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_the_log_of_a_removed_folder_is_ignored(s3: Place, tmp_path: Path) -> None:
    """If someone removes the partial folder, the next download starts again from the beginning."""
    url = put(s3)
    child(s3, url, tmp_path, die_after=6).communicate(timeout=120)
    (partial,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    subprocess.run(["rm", "-r", str(partial)], check=True)
    assert whole(fetch(S3Model(url, s3.address.s3), tmp_path)[0])


def test_the_ranks_of_a_node_download_a_model_once(s3: Place, tmp_path: Path) -> None:
    """Of four processes, one downloads everything and the others nothing. All get the same folder."""
    url = put(s3)
    ranks = [child(s3, url, tmp_path) for _ in range(4)]
    outputs = [rank.communicate(timeout=120)[0].split() for rank in ranks]
    assert {rank.returncode for rank in ranks} == {0}
    assert len({folder for folder, _ in outputs}) == 1
    assert sorted(int(requested) for _, requested in outputs) == [0, 0, 0, TOTAL]
    assert whole(Path(outputs[0][0]))


def test_a_rank_that_waits_for_a_download_survives_its_end(
    s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rank measures the partial folder again and again, while the process that downloads may rename the folder."""
    monkeypatch.setattr(model_cache, "_LOCK_POLL_S", 0)
    model = S3Model(put(s3), s3.address.s3)
    complete, _ = fetch(model, tmp_path)
    partial, elsewhere = Path(f"{complete}.partial"), tmp_path / "elsewhere"
    measured = threading.Semaphore(0)
    with ThreadPoolExecutor(1) as pool, Path(f"{complete}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete.rename(partial)
        cache = ModelCache(tmp_path, range_bytes=RANGE)
        waiting = pool.submit(cache.get, model, on_progress=lambda done, total: measured.release())
        measured.acquire()
        for _ in range(20_000):
            partial.rename(elsewhere)
            elsewhere.rename(partial)
        partial.rename(complete)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waiting.result(60) == complete


def test_a_prefix_without_files_gives_an_error_that_says_what_to_do(s3: Place, tmp_path: Path) -> None:
    """The error has the URL of the model, and says to copy the model there."""
    with pytest.raises(
        BlobNotFoundError, match=f"model {s3.address.url} at .* does not exist.*copy the model"
    ):
        fetch(S3Model(s3.address.url, s3.address.s3), tmp_path)


def test_a_wrong_secret_key_is_reported(
    versitygw_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses the request, and the error names the secret key."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    access = S3Settings(endpoint_url=versitygw_url, path_style=True)
    with pytest.raises(BlobRefusedError, match="the secret key is wrong"):
        fetch(S3Model(f"s3://{BUCKET}/m", access), tmp_path)


def test_a_model_that_changes_during_the_download_is_not_used(
    s3: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixture of two versions stays in the partial folder, and the error says what to do."""
    monkeypatch.setattr("daybreak_server.adapters.blobs.model_cache.TRIES", 1)

    class OutdatedList(S3Model):
        def files(self) -> tuple[ModelFile, ...]:
            return tuple(replace(file, tag="0" * 32) for file in super().files())

    with pytest.raises(
        BlobUnavailableError, match=r"changed during the download; finish the upload of the new version"
    ):
        fetch(OutdatedList(put(s3), s3.address.s3), tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == [".partial"]


def test_a_range_is_read_again_after_a_broken_connection(s3: Place, tmp_path: Path) -> None:
    """A range that ends early is read again, and its bytes count once in the progress."""

    class Breaking(Counting):
        broken = 0

        def read(self, file: ModelFile, start: int, length: int) -> Iterator[bytes]:
            if start and not self.broken:
                self.broken += 1
                yield from super().read(file, start, length // 2)
                raise BlobUnavailableError("cut")
            yield from super().read(file, start, length)

    model = Breaking(put(s3), s3.address.s3)
    folder, reports = fetch(model, tmp_path)
    assert (model.broken, whole(folder), reports[-1]) == (1, True, (TOTAL, TOTAL))


def test_a_model_that_does_not_fit_is_refused(s3: Place, tmp_path: Path) -> None:
    """A download that cannot fit does not start. The error has the needed and the free size, and says what to do."""

    class Huge(S3Model):
        def files(self) -> tuple[ModelFile, ...]:
            return (ModelFile(name="a", size_bytes=1 << 40, tag="t"),)

    with pytest.raises(
        BlobRefusedError, match=r"does not fit in .* GB are needed and .*DAYBREAK_MODEL_CACHE"
    ):
        ModelCache(tmp_path).get(Huge(put(s3), s3.address.s3), on_progress=lambda done, total: None)
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobRefusedError, match="cannot be stored in"):
        fetch(S3Model(put(s3), s3.address.s3), tmp_path / "file" / "below")


@pytest.mark.parametrize("name", ["../out", "a/../../out", "/out", "a//b", "./a"])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(
    moto_url: str, tmp_path: Path, name: str
) -> None:
    """The model is refused before anything is written. The test needs moto, because versitygw normalizes keys."""
    address = s3_address(moto_url)
    place = Place("moto", address, open_blobs(address))
    url = put(place)
    client = s3_client(place.address.s3.endpoint_url)
    client.put_object(Bucket=BUCKET, Key=f"{url.removeprefix(f's3://{BUCKET}/')}/{name}", Body=b"x")
    client.close()
    with pytest.raises(BlobRefusedError, match="contains a file named"):
        fetch(S3Model(url, address.s3), tmp_path)
    assert os.listdir(tmp_path) == []

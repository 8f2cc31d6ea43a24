"""Provides the stores under test: a local folder, moto's S3 server, and versitygw if it is on the PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.adapters.blobs import open_blobs
from daybreak_server.adapters.blobs.s3 import client_factory
from daybreak_server.local.free_ports import free_port
from daybreak_server.ports.blobs import Blobs
from daybreak_server.settings.tree import ArtifactSettings, S3Settings
from testkit.waiting import wait_until

BUCKET = "daybreak-tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "daybreak", "AWS_SECRET_ACCESS_KEY": "daybreak-secret"}
_numbers = count()


@dataclass(frozen=True, slots=True)
class Place:
    """A store under test, with its kind and its address."""

    kind: str
    address: ArtifactSettings
    blobs: Blobs


@pytest.fixture(scope="session", autouse=True)
def aws_variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set the credentials in AWS's variables, and hide the AWS configuration of this machine."""
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", nowhere)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
        yield


def _server(command: Callable[[int], list[str]], folder: Path) -> Iterator[str]:
    """Run an S3 server with one bucket, and yield its URL."""
    port = free_port()
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command(port), stdout=out, stderr=out, cwd=folder)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as exc:
            exc.close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers, 60, f"the S3 server at {url}")
        make_bucket(url)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def s3_client(url: str) -> Any:
    """A plain client of the server. It takes its credentials from the environment."""
    return client_factory(region="us-east-1", path_style=True, other_server=True)(url)


def make_bucket(url: str) -> None:
    client = s3_client(url)
    client.create_bucket(Bucket=BUCKET)
    client.close()


@pytest.fixture(scope="session")
def moto_url(aws_variables: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("moto")
    yield from _server(lambda port: [sys.executable, "-m", "moto.server", "-p", str(port)], folder)


@pytest.fixture(scope="session")
def versitygw_url(aws_variables: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binary = shutil.which("versitygw")
    if binary is None:
        pytest.skip("versitygw is not on PATH")
    folder = tmp_path_factory.mktemp("versitygw")
    (folder / "data").mkdir()
    access, secret = CREDENTIALS.values()
    yield from _server(
        lambda port: [
            *(binary, "--access", access, "--secret", secret, "--port", f"127.0.0.1:{port}"),
            *("posix", str(folder / "data")),
        ],
        folder,
    )


def s3_address(url: str, *, bucket: str = BUCKET, **settings: object) -> ArtifactSettings:
    """Return a new address in the bucket: a prefix that no other test uses."""
    access = S3Settings.model_validate({"endpoint_url": url, "path_style": True, **settings})
    return ArtifactSettings(url=f"s3://{bucket}/test-{os.getpid()}-{next(_numbers)}", s3=access)


@pytest.fixture(params=["moto", "versitygw"])
def s3(request: pytest.FixtureRequest) -> Place:
    """An empty store on an S3 server."""
    address = s3_address(request.getfixturevalue(f"{request.param}_url"))
    return Place(request.param, address, open_blobs(address))


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """An empty store in a folder."""
    address = ArtifactSettings(url=(tmp_path / "store").as_uri())
    return Place("local", address, open_blobs(address))


@pytest.fixture(params=["local", "moto", "versitygw"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty store of each kind, for the contract tests."""
    if request.param == "local":
        address = ArtifactSettings(url=(tmp_path / "store").as_uri())
    else:
        address = s3_address(request.getfixturevalue(f"{request.param}_url"))
    return Place(request.param, address, open_blobs(address))

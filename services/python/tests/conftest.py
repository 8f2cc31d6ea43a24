"""What the tests of all folders share: one real Valkey for a whole run of pytest."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from daybreak_server.workloads.video.pipeline.determinism import CPU_ENVIRONMENT
from testkit.valkey import Server, start_valkey

# The tests of videos need these variables. MKL reads them only once, when a test of any folder first uses torch.
for _name, _value in CPU_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

# No deadline: a slow example on a busy machine is not a failure. `--hypothesis-profile long` runs many more examples.
settings.register_profile("daybreak", deadline=None)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile("daybreak")


@pytest.fixture(scope="session")
def valkey_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An embedded Valkey for the whole run of pytest. The fixture ``valkey`` empties it for a test."""
    server = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_session: Server) -> Server:
    """The Valkey of the whole run, emptied for this test."""
    with valkey_session.client() as client:
        client.flushall()
    return valkey_session

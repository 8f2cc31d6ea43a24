"""The client and the command ``daybreak`` with a real gateway and worker, from registering a model to deleting it."""

from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from daybreak import AsyncClient, Client, ConflictError, ModelFailedError, ModelState, NotFoundError
from daybreak.cli.main import app
from testkit.waiting import wait_until


@pytest.fixture
def run(monkeypatch, start_models):
    """Runs the command ``daybreak`` against a gateway. ``run.models`` has the gateway and its workers."""
    models = start_models()
    monkeypatch.setenv("DAYBREAK_URL", models.api.url)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*args, code=0):
        done = CliRunner().invoke(app, list(args), prog_name="daybreak")
        assert done.exit_code == code, (done.output, done.exception)
        return done

    call.models = models
    return call


def test_a_model_is_registered_started_shown_and_deleted_by_the_client(start_models):
    models = start_models()
    worker = models.start_worker("w1")
    with Client(models.api.url) as client:
        wait_until(client.workers.list, 60, "the worker")
        shown = client.models.register(
            "org/small", "org/small", engine="test", memory_bytes=1000, min_replicas=1
        )
        assert (shown.id, shown.source, shown.min_replicas) == ("org/small", "org/small", 1)
        with pytest.raises(ConflictError, match="There is a model org/small"):
            client.models.register("org/small", "other", engine="test")
        shown = client.models.wait("org/small", timeout_s=60)
        assert (shown.ready, shown.wanted, shown.workers) == (1, 1, ["w1"])
        assert [model.id for model in client.models.list()] == ["org/small"]
        (found,) = client.workers.list()
        assert (found.id, found.url) == ("w1", worker.url)
        assert [(model.alias, model.state) for model in found.models] == [("org/small", "ready")]
        asking = threading.Thread(target=models.ask, args=("org/small",), kwargs={"tokens": 10, "pause": 0.2})
        asking.start()
        wait_until(lambda: worker.events("begin"), 30, "the request")
        client.models.delete("org/small")
        assert client.models.get("org/small").state is ModelState.DRAINING
        assert worker.events("end") == []
        asking.join()
        assert len(worker.events("end")) == 1  # the request was not cut off

        def gone():
            try:
                client.models.get("org/small")
            except NotFoundError as error:
                return error.code == "model_not_found"
            return False

        wait_until(gone, 60, "the model is gone")
        wait_until(lambda: client.workers.list()[0].models == [], 60, "its replica is gone")


async def test_the_asyncio_client_does_the_same(start_models):
    models = start_models()
    models.start_worker("w1")
    async with AsyncClient(models.api.url) as client:
        await client.models.register("small", "org/small", engine="test", min_replicas=1)
        states = [model.state async for model in client.models.watch("small", timeout_s=60)]
        assert states[-1] is ModelState.READY
        assert (await client.models.wait("small")).ready == 1
        assert (await client.models.get("small")).workers == ["w1"]
        assert [model.id for model in await client.models.list()] == ["small"]
        assert [worker.id for worker in await client.workers.list()] == ["w1"]
        await client.models.delete("small")


def test_a_model_that_cannot_start_says_why(start_models, tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    models = start_models()
    models.start_worker("w1")
    with Client(models.api.url) as client:
        client.models.register("bad", "org/bad", engine="test", args={"broken": str(broken)}, min_replicas=1)
        with pytest.raises(ModelFailedError, match="Worker w1 could not start it") as caught:
            client.models.wait("bad", timeout_s=60)
        assert caught.value.model.state is ModelState.FAILED


def test_the_command_registers_waits_lists_shows_and_deletes(run):
    assert "no workers" in run("workers").stderr
    assert "no models" in run("models", "list").stderr
    run.models.start_worker("w1")
    done = run(
        *("models", "register", "small", "org/small", "--engine", "test", "--arg", "load_s=0.5"),
        *("--memory", "1MB", "--min-replicas", "1", "--wait"),
    )
    lines = done.stderr.splitlines()
    assert "small is ready" in lines[-1]
    assert any("small is starting" in line or "small is placing" in line for line in lines[:-1])
    assert run("models", "list").stdout == "small\tready\t1/1\tw1\t\n"
    shown = run("models", "show", "small").stdout
    assert "ready" in shown
    assert "load_s=0.5" in shown
    row = run("workers").stdout.split("\t")
    assert (row[0], row[1], row[4], row[5]) == ("w1", "ready", "test", "small ready")
    assert "is deleted" in run("models", "delete", "small").stderr
    missing = run("models", "show", "none", code=3)
    assert "There is no model 'none'" in missing.stderr
    assert "`daybreak models list` lists the models." in missing.stderr


def test_the_command_shows_the_last_lines_of_an_engine_that_fails(run, tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    run.models.start_worker("w1")
    done = run(
        *("models", "register", "bad", "org/bad", "--engine", "test", "--arg", f"broken={broken}"),
        *("--min-replicas", "1", "--wait"),
        code=1,
    )
    assert "bad is failed: Worker w1 could not start it" in done.stderr
    assert "CUDA out of memory, as it were" in done.stderr

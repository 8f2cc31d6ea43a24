"""Tests of the deployments in the Ray Serve applications: their names and their classes."""

from __future__ import annotations

from typing import Any

import pytest

from daybreak_server.domain import names
from daybreak_server.settings.tree import PoolSettings, Settings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def serve_app() -> Any:
    """The module ``ray_serve``, imported only here because it imports Ray."""
    from daybreak_server.entrypoints import ray_serve

    return ray_serve


def deployment(app: Any) -> Any:
    """The only deployment of an application."""
    return app._bound_deployment


def test_video_generator_serves_the_video_pool_and_a_rank_replica_any_other(serve_app: Any) -> None:
    settings = Settings(
        pools={"video": PoolSettings(), "video-hd": PoolSettings(), "echo": PoolSettings(workload="echo")}
    )
    classes = {name: deployment(serve_app.pool_app(settings, name)).func_or_class for name in settings.pools}
    assert issubclass(serve_app.VideoGenerator, serve_app.RankReplica)
    assert classes == {
        "video": serve_app.VideoGenerator,
        "video-hd": serve_app.RankReplica,
        "echo": serve_app.RankReplica,
    }


def test_deployments_have_the_names_that_the_docs_and_the_operator_use(serve_app: Any) -> None:
    settings = Settings(pools={"video": PoolSettings(), "video-hd": PoolSettings()})
    assert deployment(serve_app.api_app(settings)).name == "APIEntrypoint"
    assert deployment(serve_app.pool_app(settings, "video")).name == "VideoGenerator"
    for name in settings.pools:
        assert deployment(serve_app.pool_app(settings, name)).name == names.deployment_name(name)

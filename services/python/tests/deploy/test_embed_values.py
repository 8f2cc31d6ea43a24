"""The example values for embedding reach the settings, the pods of groups, and the resources that Ray reserves."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from deploy_chart import CHART, render
from test_rendered import environment, pools

from daybreak_server.api.intake.catalog import Catalog
from daybreak_server.operator.planner.render import cluster
from daybreak_server.settings.tree import Settings, load_settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecation warnings of Ray
    from daybreak_server.entrypoints.ray_serve import pool_app

EXAMPLE = CHART / "ci" / "embed-values.yaml"
ON_CPU = {name: {"resources": {"cpus": 2, "gpus": 0}} for name in ("embed", "rerank")}


def settings_of_the_head(
    name: str, folder: Path, also: dict[str, object] | None = None, *, example: Path = EXAMPLE
) -> Settings:
    """The settings that the head of a pool reads: the chart's file, and the variables that the operator adds."""
    rendered = render(example, also={"pools": also} if also else None)
    path = folder / "daybreak.yaml"
    path.write_text(rendered.object("ConfigMap", "daybreak-config")["data"]["daybreak.yaml"])
    made = cluster(pools(rendered)[name], replicas=1, suspend=False)
    (container, *_) = made["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    return load_settings(path, environ=environment(container))


def reserved(settings: Settings, name: str) -> dict[str, float]:
    """What Ray reserves for a rank of the pool."""
    return dict(pool_app(settings, name)._bound_deployment.ray_actor_options)


@pytest.mark.parametrize("name", ["embed", "rerank"])
def test_the_example_is_valid_down_to_the_options_of_the_workloads(name: str, tmp_path: Path) -> None:
    settings = settings_of_the_head(name, tmp_path)
    entry = Catalog(settings).get(name)
    assert (entry.spec.name, entry.model_name) == (name, entry.settings.options["model_name"])
    assert settings.http.default_pools.model_dump(exclude_none=True) == {"embed": "embed", "rerank": "rerank"}


@pytest.mark.parametrize("name", ["embed", "rerank"])
def test_a_rank_reserves_half_a_gpu_and_its_pod_requests_a_whole_one(name: str, tmp_path: Path) -> None:
    """Ray can reserve a fraction of a device. Kubernetes can assign only whole devices."""
    assert reserved(settings_of_the_head(name, tmp_path), name) == {"num_cpus": 4, "num_gpus": 0.5}
    (workers,) = cluster(pools(render(EXAMPLE))[name], replicas=1, suspend=False)["spec"]["workerGroupSpecs"]
    (container, *_) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert workers["rayStartParams"]["num-gpus"] == "1"


@pytest.mark.parametrize("name", ["embed", "rerank"])
def test_without_gpus_a_rank_reserves_none(name: str, tmp_path: Path) -> None:
    settings = settings_of_the_head(name, tmp_path, ON_CPU)
    assert settings.pools[name].device == "cpu"
    assert reserved(settings, name) == {"num_cpus": 2}


def test_a_device_of_mig_takes_the_place_of_a_whole_gpu() -> None:
    """The pod requests the MIG device, and Ray still sees one device, as the comment in the example says."""
    limits = {"nvidia.com/gpu": 0, "nvidia.com/mig-1g.18gb": 1}
    rendered = render(EXAMPLE, also={"pools": {"embed": {"worker": {"resources": {"limits": limits}}}}})
    (workers,) = cluster(pools(rendered)["embed"], replicas=1, suspend=False)["spec"]["workerGroupSpecs"]
    (container, *_) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"].items() >= limits.items()
    assert workers["rayStartParams"]["num-gpus"] == "1"


@pytest.mark.parametrize(
    ("device", "gpus", "expected"),
    [
        ("cuda", False, {"num_cpus": 1.0, "num_gpus": 0.25}),
        ("auto", True, {"num_cpus": 1.0, "num_gpus": 0.25}),
        ("auto", False, {"num_cpus": 1.0}),
        ("cpu", True, {"num_cpus": 1.0}),
    ],
)
def test_a_fraction_of_a_gpu_reaches_ray_if_ranks_run_on_gpus(
    device: str, gpus: bool, expected: dict[str, float]
) -> None:
    pool = {"workload": "echo-serve", "device": device, "gpus_per_rank": 0.25}
    settings = Settings.model_validate({"pools": {"vectors": pool}})
    assert pool_app(settings, "vectors", gpus=gpus)._bound_deployment.ray_actor_options == expected

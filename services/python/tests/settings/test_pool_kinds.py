"""A pool has the kind of its workload. A kind in the settings or the GeneratorPool must be the same."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from daybreak_server import wiring
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.settings.tree import PoolSettings, Settings
from daybreak_server.workloads import discovery
from daybreak_server.workloads.base import WorkloadSpec


class _Params(BaseModel):
    pass


FUTURE_KIND = WorkloadSpec(name="odd", kind="odd", Params=_Params, implementation="a.b:C")
FUTURE_KIND_PATH = f"{__name__}:FUTURE_KIND"


def test_each_kind_has_a_builder_for_its_groups() -> None:
    assert set(wiring.LOOPS) == set(PoolKind)


def test_a_pool_may_state_the_kind_of_its_workload() -> None:
    for kind in (None, PoolKind.JOBS):
        assert PoolEntry.of("echo", PoolSettings(workload="echo", kind=kind)).spec.kind == "jobs"


def test_a_kind_that_is_not_served_is_refused_at_start_and_named() -> None:
    """The API and the rank process both refuse such a pool, so that no task waits forever."""
    settings = Settings.model_validate({"pools": {"odd": {"workload": FUTURE_KIND_PATH}}})
    with pytest.raises(
        discovery.WrongKindError, match="has the kind 'odd'; this version serves: jobs, online"
    ):
        PoolEntry.of("odd", settings.pools["odd"])
    with pytest.raises(discovery.WrongKindError, match="'odd'"):
        wiring.build_rank(settings, "odd", on_broken=print)


def test_a_pool_that_states_a_different_kind_from_its_workload_is_refused() -> None:
    with pytest.raises(discovery.WrongKindError, match="correct the pool's kind"):
        discovery.spec("echo", kind="online")
    with pytest.raises(discovery.WrongKindError, match="correct the pool's kind"):
        PoolEntry.of("echo", PoolSettings.model_validate({"workload": "echo", "kind": "online"}))
    with pytest.raises(ValidationError, match="jobs"):
        PoolSettings.model_validate({"workload": "echo", "kind": "odd"})


def test_a_pool_of_sessions_with_several_ranks_is_refused_at_start() -> None:
    """The API, the commands and the rank process refuse such a pool before a model is loaded."""
    settings = Settings.model_validate({"pools": {"s": {"workload": "simulated-speech", "ranks": 2}}})
    message = "groups have one rank, but its pool has 2; set ranks to 1"
    with pytest.raises(discovery.WrongKindError, match=message):
        PoolEntry.of("s", settings.pools["s"])
    with pytest.raises(discovery.WrongKindError, match=message):
        wiring.build_rank(settings, "s", on_broken=print)
    assert discovery.spec("echo", ranks=2).kind == "jobs"


def test_each_setting_that_is_refused_says_which_kinds_may_have_it() -> None:
    pool = PoolSettings.model_validate({"workload": "echo", "capacity": 4, "target_load": 0.5})
    expected = (
        "cannot have capacity, target_load; leave that out: capacity is for pools of the kind online, target_load is "
        "for pools of the kind online or sessions"
    )
    with pytest.raises(discovery.WrongKindError, match=expected):
        PoolEntry.of("echo", pool)


@pytest.mark.parametrize("setting", ["capacity", "routing", "target_load", "ports"])
def test_what_is_for_answering_requests_only_is_refused_for_jobs(setting: str) -> None:
    value = {"routing": "session", "ports": "20100-20199"}.get(setting, 4)
    with pytest.raises(discovery.WrongKindError, match=f"cannot have {setting}"):
        PoolEntry.of("echo", PoolSettings.model_validate({"workload": "echo", setting: value}))
    PoolEntry.of("answers", PoolSettings.model_validate({"workload": "echo-serve", setting: value}))


def test_the_capacity_of_a_group_is_the_pools_or_else_the_workloads() -> None:
    pools = {"own": {"workload": "echo-serve", "capacity": 3}, "echo-serve": {"workload": "echo-serve"}}
    settings = Settings.model_validate({"pools": pools})
    assert wiring.group_config(settings, "own").capacity == 3
    assert wiring.group_config(settings, "echo-serve").capacity == discovery.spec("echo-serve").capacity


def test_a_pool_that_answers_requests_has_a_target_load() -> None:
    """The target load is that of the pool's settings, or else the capacity of its groups. A pool of jobs has none."""
    serve = {"workload": "echo-serve"}
    pools = {
        "own": {**serve, "capacity": 8, "target_load": 2.5},
        "full": {**serve, "capacity": 8},
        "default": serve,
        "echo": {},
    }
    capacity = discovery.spec("echo-serve").capacity
    loads = wiring.target_loads(Settings.model_validate({"pools": pools}))
    assert loads == {"own": 2.5, "full": 8, "default": capacity}


@pytest.mark.parametrize("load", [0, -1, float("nan"), float("inf"), "many"])
def test_a_target_load_that_divides_nothing_is_refused(load: object) -> None:
    with pytest.raises(ValidationError, match="target_load"):
        PoolSettings.model_validate({"workload": "echo-serve", "target_load": load})

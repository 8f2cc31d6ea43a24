"""The deploy attempts of the Serve application, which are counted per revision of the template."""

from __future__ import annotations

from dataclasses import replace

from operator_samples import (
    NOW,
    actions_of,
    busy,
    group,
    head,
    hosts,
    observed,
    only_action,
    pool,
    ray_cluster,
    settled,
)

from daybreak_server.adapters.ray.serve_rest import view
from daybreak_server.operator.crd.resource import Application, PoolStatus
from daybreak_server.operator.planner.actions import PutApplication, ScaleApplication
from daybreak_server.operator.planner.plan import REQUEUE_FAST_S, plan
from daybreak_server.ports.cluster import ServeView


def test_a_missing_application_is_deployed_and_a_failed_one_gets_a_new_attempt() -> None:
    """A head without fault tolerance restarts empty, and Serve does not retry a failed application."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 1)
    missing = observed(video, rc, pods=[head(rc)], serve={rc.name: ServeView()})
    assert only_action(missing, PutApplication).config["applications"][1]["args"]["attempt"] == 0
    failed = ServeView(status="DEPLOY_FAILED", attempt=0, target=2, message="it raised")
    tried = pool(replicas=1, status=PoolStatus(application=Application(since=NOW - 31)))
    observation = observed(tried, rc, pods=[head(rc)], serve={rc.name: failed})
    assert only_action(observation, PutApplication).config["applications"][1]["args"]["attempt"] == 1
    assert plan(observation).status.application.attempt == 1
    at_work = observed(
        tried, rc, pods=[head(rc), *hosts(rc, "a")], groups=[busy("g", "a0")], serve={rc.name: failed}
    )
    assert actions_of(at_work, PutApplication) == []


def test_an_application_is_scaled_only_when_serve_has_built_it() -> None:
    """Serve builds an application in a process of its own.

    Until the application is built, Ray answers 404 to a request to scale.
    """
    app = {"status": "DEPLOYING", "deployed_app_config": {"args": {"attempt": 0}}, "deployments": {}}
    building = view({"applications": {"video": app}}, application="video")
    video = pool(replicas=1)
    rc = ray_cluster(video, 1)
    early = observed(video, rc, pods=[head(rc)], serve={rc.name: building})
    assert (actions_of(early, ScaleApplication), plan(early).requeue_after_s) == ([], REQUEUE_FAST_S)
    failed = settled(replace(early, serve={rc.name: replace(building, status="DEPLOY_FAILED")}))
    assert actions_of(failed, ScaleApplication) == []
    built = replace(early, serve={rc.name: replace(building, built=True)})
    assert only_action(built, ScaleApplication).target == rc.ranks


def test_attempts_are_counted_per_revision() -> None:
    """The failures of earlier templates do not delay a new template.

    If the pool returns to a template whose application still runs, the operator does not deploy the application again.
    """
    earlier = Application(attempt=5, since=NOW - 10)
    before = PoolStatus(application=earlier, revision="another")
    video = pool(replicas=1, status=before)
    assert plan(observed(video)).status.application == Application()
    rc = ray_cluster(video, 1)
    back = observed(video, rc, pods=[head(rc), *hosts(rc, "a")], groups=[group("g", "a0")])
    as_it_is = replace(back, serve={rc.name: replace(back.serve[rc.name], attempt=0)})
    assert (actions_of(as_it_is, PutApplication), plan(as_it_is).status.application) == ([], Application())
    same = pool(replicas=1, status=before.model_copy(update={"revision": rc.revision}))
    assert plan(observed(same, rc, pods=[head(rc)])).status.application == earlier


def test_a_template_that_returns_keeps_its_application_although_its_head_is_silent_for_a_while() -> None:
    """The deploy attempts of the template in between do not count for the template that returns. Deploying the
    application again would stop all groups."""
    before = PoolStatus(application=Application(attempt=5, since=NOW - 10), revision="another")
    video = pool(replicas=1, status=before)
    rc = ray_cluster(video, 1)
    pods, groups = [head(rc), *hosts(rc, "a")], [group("g", "a0")]
    silent = settled(observed(video, rc, pods=pods, groups=groups, serve={}))
    assert silent.pool.status.revision == rc.revision
    running = ServeView(status="RUNNING", attempt=2, target=2, running=2)
    answers = replace(silent, serve={rc.name: running})
    assert (actions_of(answers, PutApplication), plan(answers).status.application) == (
        [],
        Application(attempt=2),
    )
    failing = settled(replace(answers, serve={rc.name: replace(running, status="DEPLOY_FAILED")}))
    assert failing.pool.status.application == Application(attempt=2, since=NOW)


def test_a_template_that_is_tried_again_continues_to_count_its_attempts() -> None:
    """Between the two tries, the pool returned to an earlier template for a short time. During this time, the head of
    the earlier template did not answer."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 1)
    earlier = Application(attempt=5, since=NOW - 10, revision=rc.revision)
    again = pool(replicas=1, status=PoolStatus(application=earlier, revision="another"))
    assert plan(observed(again, rc, pods=[head(rc)])).status.application == Application(
        attempt=5, since=NOW - 10
    )

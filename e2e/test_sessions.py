"""Pools of streaming sessions scale with the number of open sessions, from zero and back, while clients speak.

The pool ``talks`` has the simulated model, whose text shows whether audio or text was lost. The pool ``speech`` has the
tiny speech model; its client runs in the cluster, and reaches the gateways through their Service.

The tests run in the order of this file. Each test finds the sessions that the previous test has left, but also passes
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from daybreak import NotFoundError
from daybreak.wire.pools import PoolSessions
from daybreak_server.workloads.speech.clips import clips
from e2e.every_kind import SPEECH, TALKS, add_every_kind
from e2e.every_kind import TALKS_TARGET_LOAD as TARGET_LOAD
from e2e.speakers import Audience
from testkit.kubernetes.deployment import GATEWAY_PORT, NAME, WAKE_S, Deployment
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.core

SPEAKERS = 2 * TARGET_LOAD
CLIP = clips()[0]
CLIENT = "speaker"
SPEAK = (
    "exec daybreak speak --pool speech --to German "
    '"$(python -c "from daybreak_server.workloads.speech.clips import clips; print(clips()[0].path)")"'
)
MOVE_S = 90.0


@dataclass(frozen=True)
class Stage:
    """The pool `talks` and its speakers."""

    deployment: Deployment
    audience: Audience

    def sessions(self) -> PoolSessions:
        """What the API says about the sessions of the pool."""
        found = self.deployment.client.pool(TALKS).sessions
        assert found is not None
        return found

    def fill(self) -> None:
        """Open sessions until there are as many as two groups should have, and wait until two groups serve them."""
        self.audience.grow(SPEAKERS)
        speakers = self.audience.all
        self.audience.wait_for_texts(speakers, 1, timeout_s=WAKE_S, what="text of every session")
        by_group = self.audience.by_group()
        log(f"  sessions by group: { {group: len(held) for group, held in by_group.items()} }")
        assert len(by_group) == 2

    def wait_for_open(self, count: int) -> None:
        """Wait until the API shows this many open sessions."""
        wait_until(lambda: self.sessions().open == count, timeout_s=60, what=f"{count} open sessions")


@pytest.fixture(scope="module")
def stage(deployment: Deployment) -> Iterator[Stage]:
    """Adds the pools to the shared installation, and starts the client in the cluster. The next upgrade of the
    installation removes the pools."""
    add_every_kind(deployment)
    deployment.kube.create([deployment.release.client_pod(CLIENT, ["sh", "-c", SPEAK])])
    wait_until(lambda: _knows_the_pools(deployment), timeout_s=60, what="a gateway that knows the pools")
    gateway = deployment.port_forward(f"{NAME}-gateway", GATEWAY_PORT)
    audience = Audience(gateway.url, TALKS)
    yield Stage(deployment, audience)
    audience.close()


def _knows_the_pools(deployment: Deployment) -> bool:
    """For a moment after the upgrade, a gateway that does not know the pools may still answer."""
    try:
        return all(deployment.client.pool(name) for name in (TALKS, SPEECH))
    except NotFoundError:
        return False


def test_sessions_that_open_at_zero_are_served_after_the_wake(stage: Stage) -> None:
    """One session above a group's target load starts a second group. Audio that is sent during a wake is not lost."""
    deployment, audience = stage.deployment, stage.audience
    deployment.wait_for_zero(TALKS, head=False)
    audience.grow(TARGET_LOAD)
    assert {speaker.opened_as for speaker in audience.all} == {"waiting"}
    stage.wait_for_open(TARGET_LOAD)
    # A gateway computes the demand once a second.
    wait_until(
        lambda: deployment.client.pool(TALKS).groups_needed == 1, timeout_s=60, what="one group needed"
    )
    audience.wait_for_texts(audience.all, 1, timeout_s=WAKE_S, what="text of every session")
    assert deployment.replicas_wanted(TALKS) == 1
    deployment.wait_for_groups(TALKS, 1)
    audience.grow(TARGET_LOAD + 1)
    wait_until(lambda: deployment.replicas_wanted(TALKS) == 2, timeout_s=60, what="a second group wanted")
    stage.fill()
    for speaker in audience.all:
        speaker.assert_exact()


def test_no_session_breaks_when_the_pod_of_its_group_is_killed(stage: Stage) -> None:
    """The other group takes over as many sessions as fit, and a new group takes over the rest.

    No connection breaks, and no text changes.
    """
    deployment, audience = stage.deployment, stage.audience
    stage.fill()
    (victim, orphans), (other, kept) = audience.by_group().items()
    before = {speaker: speaker.attempts for speaker in audience.all}
    (pod,) = next(group.hosts or [] for group in deployment.client.pool(TALKS).groups if group.id == victim)
    log(f"  killing {pod} of {victim}, which has {len(orphans)} sessions; {other} stays")
    deployment.kube.delete_pod(pod, force=True)
    wait_until(
        lambda: all(speaker.attempts > before[speaker] for speaker in orphans),
        timeout_s=WAKE_S,
        what="each session of the killed group to have another group",
    )
    audience.wait_for_texts(audience.all, 3, timeout_s=30, what="more text of every session")
    by_group = audience.by_group()
    log(f"  sessions by group: { {group: len(held) for group, held in by_group.items()} }")
    assert victim not in by_group
    assert set(kept) < set(by_group[other]), "the group that stayed must take sessions of the killed group"
    assert all(speaker.attempts == before[speaker] for speaker in kept), (
        "the sessions of the group that stayed must not move"
    )
    for speaker in audience.all:
        speaker.assert_exact()


def test_scale_down_moves_the_sessions_of_the_group_with_fewer_of_them(stage: Stage) -> None:
    """Half of the sessions end, so one of two groups is enough. The session that moves loses no audio or text."""
    deployment, audience = stage.deployment, stage.audience
    stage.fill()
    (fuller, its), (emptier, others) = audience.by_group().items()
    audience.stop([*its[TARGET_LOAD - 1 :], *others[1:]])
    staying, (moving,) = its[: TARGET_LOAD - 1], others[:1]
    before = {speaker: speaker.attempts for speaker in audience.all}
    stage.wait_for_open(TARGET_LOAD)
    log(f"  {fuller} has {len(staying)} sessions, and {emptier} has 1")
    wait_until(lambda: moving.group == fuller, timeout_s=MOVE_S, what=f"the move from {emptier} to {fuller}")
    wait_until(
        lambda: emptier not in deployment.groups(TALKS), timeout_s=MOVE_S, what=f"the removal of {emptier}"
    )
    assert moving.attempts == before[moving] + 1
    assert all(speaker.attempts == before[speaker] for speaker in staying)
    audience.wait_for_texts(audience.all, 3, timeout_s=30, what="more text of every session")


def test_without_sessions_the_pool_returns_to_zero(stage: Stage) -> None:
    """Each session ends with exactly the text of an undisturbed session."""
    stage.audience.grow(1)
    stage.audience.close()
    stage.wait_for_open(0)
    stage.deployment.wait_for_zero(TALKS, head=False)


def test_speech_is_translated_from_zero_for_a_client_in_the_cluster(stage: Stage) -> None:
    """`daybreak speak` in a pod reaches a gateway through the Service, and waits until `speech` has woken from zero."""
    kube = stage.deployment.kube
    ended = wait_until(
        lambda: kube.phase(CLIENT) in {"Succeeded", "Failed"} and kube.phase(CLIENT),
        timeout_s=WAKE_S,
        what=f"the end of the pod {CLIENT}",
    )
    output = kube.log(CLIENT, "test")
    log(f"  {output.strip()!r}")
    assert ended == "Succeeded", output
    assert CLIP.references["de"] in output.splitlines()
    stage.deployment.wait_for_zero(SPEECH, head=False)

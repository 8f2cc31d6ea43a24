"""What is wrong, in a sentence that names the cause and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.pools import WakePhase
from daybreak_server.operator.crd.resource import SpecInvalidError
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.ports.cluster import Pod, Warned

RECENT_S = 300.0
"""A warning of Kubernetes counts for so long; Kubernetes repeats those that go on."""
_EVENT_S = 1.0
"""Events have whole seconds."""
SLOW_HEAD_S = 180.0
SILENT_S = 60.0
"""KEDA and KubeRay answer within seconds; where they have not for so long, they are not there."""


_WHAT_TO_DO: dict[str, str] = {
    Reason.QUOTA_EXCEEDED: "The namespace's ResourceQuota does not allow another pod. Raise the quota, or lower the "
    "pool's resources or the ScaledObject's maxReplicaCount. Tasks wait meanwhile.",
    Reason.POD_SECURITY_REFUSED: "The namespace's Pod Security level refuses the pods of the template. Add the "
    "securityContext that it names to spec.rayCluster, or relax the namespace's level.",
    Reason.ADMISSION_REFUSED: "An admission webhook of this cluster refuses the pods. Change spec.rayCluster as "
    "it says.",
    Reason.REDIS_UNREACHABLE: "Redis cannot be reached, so no group is taken away until it answers. Check its pods and "
    "DAYBREAK_REDIS__URL.",
    Reason.REDIS_REFUSED: "Redis refuses the password. Correct the Secret that it comes from; pods have it within two "
    "minutes.",
    Reason.MODEL_MISSING: "The model cannot be loaded. See that spec.model names the folder as the pods see it, and "
    "that its volume is mounted in spec.rayCluster.",
    Reason.MODEL_UNAVAILABLE: "The model cannot be fetched. Check the bucket of spec.model and the credentials' right "
    "to read and list there. GroupStore try again.",
    Reason.ARTIFACTS_REFUSED: "The file store refuses. Check DAYBREAK_ARTIFACTS__URL, the bucket, and the credentials' "
    "right to read, write and delete there.",
    Reason.OUT_OF_MEMORY: "A rank ran out of memory. Give ranks more (spec.resources.memory), or spread the model over "
    "more.",
    Reason.CONFIG_MISSING: "A Secret or ConfigMap that the template names does not exist in this namespace. Create it.",
}
"""What goes before the words of a cause that others report; those of other reasons are shown as they are."""

QUOTE_MARK = " said: "
"""What follows are others' words. They may differ from look to look while the cause is the same."""

_WAITING: dict[str, tuple[str, str]] = {
    "ImagePullBackOff": ("ImagePullFailed", "image"),
    "ErrImageNeverPull": ("ImagePullFailed", "image"),
    "InvalidImageName": ("ImagePullFailed", "image"),
    "CreateContainerConfigError": ("ConfigMissing", "config"),
    "CreateContainerError": ("ContainerRefused", "container"),
    "CrashLoopBackOff": ("PodCrashes", "crash"),
    "OOMKilled": (Reason.OUT_OF_MEMORY, "memory"),
    "Unschedulable": ("Unschedulable", "place"),
    "VolumeNotReady": ("VolumeMissing", "volume"),
}
_ADVICE = {
    "image": "Check the image's name and tag in spec.rayCluster and the registry's pull Secret. "
    "GroupStore of the earlier image go on working.",
    "config": "Create the Secret or ConfigMap that it names, in the pool's namespace.",
    "container": "The node cannot start the container as the template describes it.",
    "crash": "`kubectl logs --previous` of the pod shows its last words.",
    "memory": _WHAT_TO_DO[Reason.OUT_OF_MEMORY],
    "volume": "Its volume is not there: look at the PersistentVolumeClaim.",
    "place": "Nodes with enough of what a rank asks for (GPUs, CPUs, memory) are not there, or are tainted. "
    "Add nodes or let the cluster autoscaler do so, or lower spec.resources. Tasks wait meanwhile.",
}


def problems(observed: Observed, lanes: Sequence[ClusterState]) -> tuple[Cause, ...]:
    """What is wrong now, the most fundamental first; nothing when all is well."""
    if not observed.view.kuberay:
        return (
            Cause(
                reason="KubeRayMissing",
                message="This cluster knows no RayClusters: KubeRay is not installed. Install the "
                "kuberay-operator chart; the pool continues by itself then. Tasks wait meanwhile.",
            ),
        )
    found = [*_store(observed), *_name_conflict(observed), *_no_scaler(observed)]
    if observed.refused:
        found.append(explain(observed.refused))
    for lane in lanes:
        found += _lane(lane, observed)
    if not lanes or any(not lane.settled for lane in lanes):
        found += _warnings(observed)
    if observed.failure:
        found.append(explain(observed.failure))
    unique = {problem.reason: problem for problem in reversed(found)}
    return tuple(unique[reason] for reason in dict.fromkeys(problem.reason for problem in found))


def explain(cause: Cause) -> Cause:
    """A cause that others report, with what to do about it, where there is something to say."""
    advice, said = _WHAT_TO_DO.get(cause.reason), _short(cause.message)
    return Cause(reason=cause.reason, message=said if advice is None else f"{advice} It{QUOTE_MARK}{said}")


def unreadable(why: SpecInvalidError) -> Cause:
    """A spec that Kubernetes took and that means nothing here."""
    return Cause(
        reason="SpecInvalid",
        message=f"{why}. Correct it in the GeneratorPool, or in the chart's values that it comes from. Until then the "
        "operator changes nothing of this pool, and groups that are there work on.",
    )


def _store(observed: Observed) -> Iterator[Cause]:
    if observed.store is None and observed.store_error is not None:
        yield explain(observed.store_error)


def _no_scaler(observed: Observed) -> Iterator[Cause]:
    """Tasks are live and KEDA asks for no group."""
    pool, live = observed.pool, observed.store.live if observed.store is not None else 0
    if (
        live
        and not pool.spec.replicas
        and not pool.spec.paused
        and _stuck_in_phase(WakePhase.DETECT, observed)
    ):
        yield Cause(
            reason="NotAsked",
            message="Tasks wait and nobody asks for a group: KEDA does not see them, or is away. Look at the pool's "
            "ScaledObject, and whether KEDA's operator runs. `kubectl scale` of the GeneratorPool asks by hand.",
        )


def _stuck_in_phase(phase: WakePhase, observed: Observed) -> bool:
    """Whether the wake has been in this phase for longer than KEDA or KubeRay takes to answer."""
    wake = observed.pool.status.wake
    return wake.phase == phase and wake.since is not None and observed.now - wake.since > SILENT_S


def _name_conflict(observed: Observed) -> Iterator[Cause]:
    mine = observed.pool.uid
    for cluster in observed.view.clusters:
        if cluster.owner != mine:
            yield Cause(
                reason="NameTaken",
                message=f"A RayCluster {cluster.name} carries this pool's label and was not made by it. Delete "
                "it, or take the label off.",
            )


def _lane(lane: ClusterState, observed: Observed) -> Iterator[Cause]:
    if lane.cluster.problem:
        yield explain(lane.cluster.problem)
    if (
        lane.missing
        and not lane.cluster.heard
        and not lane.cluster.suspend
        and _stuck_in_phase(WakePhase.PODS, observed)
    ):
        yield Cause(
            reason="KubeRaySilent",
            message="KubeRay makes no pods of what the RayCluster asks for, and says nothing: its operator is away, or "
            "does not watch this namespace. The pool goes on by itself when it does. Tasks wait meanwhile.",
        )
    if lane.cluster.hosts > 1 and any(pod.replica == pod.name for pod in lane.workers):
        yield Cause(
            reason="HostsNotIndexed",
            message="KubeRay does not say which pods form a group: its feature gate RayMultiHostIndexing is off. "
            "Turn it on in the kuberay-operator chart; a pool with hostsPerGroup above 1 needs it.",
        )
    heads = [] if lane.head is None else [lane.head]
    for pod in (*heads, *lane.workers):
        if pod.waiting is not None and not pod.terminating:
            yield from _waiting(pod)
    head = lane.head
    if head is not None and not head.ready and head.waiting is None and not lane.cluster.suspend:
        since = head.running_at
        if since is not None and observed.now - since > SLOW_HEAD_S:
            yield Cause(
                reason="HeadNotReady",
                message=f"The Ray head {head.name} runs for {SLOW_HEAD_S / 60:.0f} minutes and is not ready. "
                "Look at its logs.",
            )
    failed = lane.serve is not None and lane.serve.status == "DEPLOY_FAILED"
    if failed and observed.failure is None:  # else a rank has said why
        message = (lane.serve and lane.serve.message) or "Serve gave no reason"
        yield Cause(
            reason="ApplicationFailed",
            message=_short(f"Ray Serve could not start the application: {message}"),
        )


def _waiting(pod: Pod) -> Iterator[Cause]:
    assert pod.waiting is not None
    known = _WAITING.get(pod.waiting.reason)
    if known is None:
        return
    reason, kind = known
    said = f" Kubernetes{QUOTE_MARK}{_short(pod.waiting.message)}" if pod.waiting.message else ""
    where = "the Ray head" if pod.head else "a worker"
    yield Cause(
        reason=reason, message=f"Pod {pod.name} ({where}) waits: {pod.waiting.reason}. {_ADVICE[kind]}{said}"
    )


def _warnings(observed: Observed) -> Iterator[Cause]:
    for warning in observed.view.warnings:
        if (
            warning.cause is not None
            and observed.now - warning.at <= RECENT_S
            and not _over(warning, observed)
        ):
            yield explain(warning.cause)


def _over(warning: Warned, observed: Observed) -> bool:
    """Whether it tells of the past: of an earlier wake, or of a RayCluster that was given a pod since.

    What goes on is recorded again by Kubernetes, so the first look of a wake misses nothing for long.
    """
    wake = observed.pool.status.wake
    if wake.phase == WakePhase.ZERO:
        return True
    if wake.phase != WakePhase.READY and wake.began is not None and warning.at < wake.began - _EVENT_S:
        return True
    return any(
        pod.cluster == warning.about and pod.created_at > warning.at + _EVENT_S for pod in observed.view.pods
    )


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 400 else f"{words[:400]}…"

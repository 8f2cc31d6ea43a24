"""Finds what is wrong with a pool. Each message names the cause and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.pools import WakePhase
from daybreak_server.operator.crd.resource import SpecInvalidError
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.ports.cluster import KubeWarning, Pod

RECENT_S = 300.0
"""A Kubernetes warning that is older than this is ignored. Kubernetes repeats a warning while its cause persists."""
_EVENT_S = 1.0
"""The resolution of the times of Kubernetes Events."""
SLOW_HEAD_S = 180.0
SILENT_S = 60.0
"""KEDA and KubeRay react within seconds. A wake that waits longer than this for one of them has a problem."""


_WHAT_TO_DO: dict[str, str] = {
    Reason.QUOTA_EXCEEDED: "The namespace's ResourceQuota does not allow another pod. Raise the quota, or lower the "
    "pool's resources or the ScaledObject's maxReplicaCount. Tasks wait until then.",
    Reason.POD_SECURITY_REFUSED: "The namespace's Pod Security level refuses the pods of the template. Add the "
    "securityContext that the details name to spec.rayCluster, or relax the namespace's level.",
    Reason.ADMISSION_REFUSED: "An admission webhook of this cluster refuses the pods. Change spec.rayCluster "
    "as the details demand.",
    Reason.REDIS_UNREACHABLE: "Redis cannot be reached, so no group is removed until it answers. Check its pods and "
    "DAYBREAK_REDIS__URL.",
    Reason.REDIS_REFUSED: "Redis refuses the password. Correct the Secret that holds it; the pods have the new value "
    "within two minutes.",
    Reason.MODEL_MISSING: "The model cannot be loaded. Check that spec.model is the folder's path in the pods, and "
    "that spec.rayCluster mounts its volume.",
    Reason.MODEL_UNAVAILABLE: "The model cannot be downloaded. Check the bucket of spec.model, and that the "
    "credentials may read and list it. The groups retry.",
    Reason.ARTIFACTS_REFUSED: "The file store refuses access. Check DAYBREAK_ARTIFACTS__URL, the bucket, and that the "
    "credentials may read, write and delete in it.",
    Reason.OUT_OF_MEMORY: "A rank ran out of memory. Give ranks more memory (spec.resources.memory), or spread the "
    "model over more ranks.",
    Reason.CONFIG_MISSING: "A Secret or ConfigMap that the template names does not exist in this namespace. Create it.",
}
"""Reason → what to do. This text is shown before the reported message. If a reason is not here, the reported message is
shown alone."""

QUOTE_MARK = " Details: "
"""A quoted message follows this mark. The quote may vary between observations while the cause stays the same."""

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
    "Groups with the previous image keep working.",
    "config": "Create the missing Secret or ConfigMap in the pool's namespace.",
    "container": "The node cannot start the container as the template describes it.",
    "crash": "`kubectl logs --previous` shows why the pod ended.",
    "memory": _WHAT_TO_DO[Reason.OUT_OF_MEMORY],
    "volume": "Its volume is missing: check the PersistentVolumeClaim.",
    "place": "No node has enough free GPUs, CPUs or memory for a rank, or the nodes are tainted. "
    "Add nodes or let the cluster autoscaler add them, or lower spec.resources. Tasks wait until then.",
}


def problems(observed: Observed, states: Sequence[ClusterState]) -> tuple[Cause, ...]:
    """What is wrong now, the most fundamental cause first; empty if nothing is wrong."""
    if not observed.view.kuberay:
        return (
            Cause(
                reason="KubeRayMissing",
                message="This cluster has no RayCluster resource: KubeRay is not installed. Install the "
                "kuberay-operator chart; the pool then continues by itself. Tasks wait until then.",
            ),
        )
    found = [*_store(observed), *_name_conflict(observed), *_no_scaler(observed)]
    if observed.refused:
        found.append(explain(observed.refused))
    for state in states:
        found += _cluster_state(state, observed)
    if not states or any(not state.settled for state in states):
        found += _warnings(observed)
    if observed.failure:
        found.append(explain(observed.failure))
    unique = {problem.reason: problem for problem in reversed(found)}
    return tuple(unique[reason] for reason in dict.fromkeys(problem.reason for problem in found))


def explain(cause: Cause) -> Cause:
    """A reported cause, with what to do about it if that is known."""
    advice, quote = _WHAT_TO_DO.get(cause.reason), _short(cause.message)
    message = quote if advice is None else f"{advice}{QUOTE_MARK}{quote}"
    return Cause(reason=cause.reason, message=message)


def unreadable(why: SpecInvalidError) -> Cause:
    """The cause for a spec that Kubernetes accepted but the operator cannot read."""
    return Cause(
        reason="SpecInvalid",
        message=f"{why}. Correct it in the GeneratorPool, or in the chart's values that it comes from. Until then the "
        "operator changes nothing in this pool, and its groups keep working.",
    )


def _store(observed: Observed) -> Iterator[Cause]:
    if observed.store is None and observed.store_error is not None:
        yield explain(observed.store_error)


def _no_scaler(observed: Observed) -> Iterator[Cause]:
    """Yield a cause if there is work, but KEDA wants no group."""
    pool = observed.pool
    if (
        observed.store is not None
        and observed.store.has_work
        and not pool.spec.replicas
        and not pool.spec.paused
        and _stuck_in_phase(WakePhase.DETECT, observed)
    ):
        yield Cause(
            reason="KedaSilent",
            message="Tasks or requests wait, but KEDA does not scale the pool: it does not see them, or it does not "
            "run. Check the pool's ScaledObject and KEDA's operator. To scale by hand, run `kubectl scale` on the "
            "GeneratorPool.",
        )


def _stuck_in_phase(phase: WakePhase, observed: Observed) -> bool:
    """Whether the wake has been in this phase for longer than KEDA or KubeRay takes to answer."""
    wake = observed.pool.status.wake
    return wake.phase == phase and wake.since is not None and observed.now - wake.since > SILENT_S


def _name_conflict(observed: Observed) -> Iterator[Cause]:
    pool_uid = observed.pool.uid
    for cluster in observed.view.clusters:
        if cluster.owner != pool_uid:
            yield Cause(
                reason="NameTaken",
                message=f"RayCluster {cluster.name} carries this pool's label but does not belong to it. Delete "
                "it, or remove the label.",
            )


def _cluster_state(state: ClusterState, observed: Observed) -> Iterator[Cause]:
    if state.cluster.problem:
        yield explain(state.cluster.problem)
    if (
        state.missing
        and not state.cluster.acknowledged
        and not state.cluster.suspend
        and _stuck_in_phase(WakePhase.PODS, observed)
    ):
        yield Cause(
            reason="KubeRaySilent",
            message="KubeRay creates no pods for the RayCluster and reports no error: its operator does not run, or "
            "does not watch this namespace. Once you have corrected that, the pool continues by itself. Tasks wait "
            "until then.",
        )
    if state.cluster.hosts > 1 and any(pod.replica == pod.name for pod in state.workers):
        yield Cause(
            reason="HostsNotIndexed",
            message="KubeRay does not label which pods form a group: its feature gate RayMultiHostIndexing is off. "
            "Enable it in the kuberay-operator chart; a pool with hostsPerGroup above 1 needs it.",
        )
    heads = [] if state.head is None else [state.head]
    for pod in (*heads, *state.workers):
        if pod.waiting is not None and not pod.terminating:
            yield from _waiting(pod)
    head = state.head
    if head is not None and not head.ready and head.waiting is None and not state.cluster.suspend:
        since = head.running_at
        if since is not None and observed.now - since > SLOW_HEAD_S:
            yield Cause(
                reason="HeadNotReady",
                message=f"The Ray head {head.name} has run for {SLOW_HEAD_S / 60:.0f} minutes and is not ready. "
                "Check its logs.",
            )
    failed = state.serve is not None and state.serve.status == "DEPLOY_FAILED"
    if failed and observed.failure is None:  # unless a rank has reported why
        message = (state.serve and state.serve.message) or "Serve gave no reason"
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
    quote = f"{QUOTE_MARK}{_short(pod.waiting.message)}" if pod.waiting.message else ""
    where = "the Ray head" if pod.head else "a worker"
    yield Cause(
        reason=reason, message=f"Pod {pod.name} ({where}) waits: {pod.waiting.reason}. {_ADVICE[kind]}{quote}"
    )


def _warnings(observed: Observed) -> Iterator[Cause]:
    for warning in observed.view.warnings:
        if (
            warning.cause is not None
            and observed.now - warning.at <= RECENT_S
            and not _outdated(warning, observed)
        ):
            yield explain(warning.cause)


def _outdated(warning: KubeWarning, observed: Observed) -> bool:
    """Whether the warning is from an earlier wake, or its RayCluster has received a pod after the warning.

    Kubernetes repeats a warning while its cause persists, so a new wake soon gets the warning again.
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

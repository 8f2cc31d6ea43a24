"""Parses the JSON of Kubernetes objects into the types of :mod:`~daybreak_server.ports.cluster`, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from daybreak_server.adapters.kube import refusal_causes
from daybreak_server.domain.causes import Cause
from daybreak_server.ports.cluster import (
    RANKS_ANNOTATION,
    REVISION_LABEL,
    KubeWarning,
    Pod,
    RayCluster,
    WaitingReason,
)

CLUSTER_LABEL = "ray.io/cluster"
NODE_TYPE_LABEL = "ray.io/node-type"
REPLICA_LABEL = "ray.io/worker-group-replica-name"
_REFUSED = {"RayClusterReplicaFailure": "True"}
CRASHED, OOM_KILLED = "CrashLoopBackOff", "OOMKilled"
_SAME = {"ErrImagePull": "ImagePullBackOff"}
"""Kubernetes alternates between the two reasons of a pair, so the first counts as the second."""


def moment(text: str | None) -> float | None:
    """Convert an RFC 3339 timestamp to seconds since 1970."""
    return None if not text else datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def ray_cluster(body: Mapping[str, Any]) -> RayCluster:
    """A RayCluster. The operator creates one worker group, which runs the ranks."""
    meta, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    groups = spec.get("workerGroupSpecs") or [{}]
    group = groups[0]
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    owners = [owner["uid"] for owner in meta.get("ownerReferences") or [] if owner.get("controller")]
    return RayCluster(
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        owner=owners[0] if owners else "",
        revision=(meta.get("labels") or {}).get(REVISION_LABEL, ""),
        ranks=int((meta.get("annotations") or {}).get(RANKS_ANNOTATION, 1)),
        created_at=moment(meta.get("creationTimestamp")) or 0.0,
        worker_group=group.get("groupName", ""),
        replicas=int(group.get("replicas") or 0),
        hosts=int(group.get("numOfHosts") or 1),
        workers_to_delete=tuple((group.get("scaleStrategy") or {}).get("workersToDelete") or ()),
        suspend=bool(spec.get("suspend", False)),
        suspended=_true(conditions.get("RayClusterSuspended")),
        deleting=bool(meta.get("deletionTimestamp")),
        auth_secret=_auth_secret(meta["name"], spec.get("authOptions") or {}),
        head_service=((status.get("head") or {}).get("serviceName")) or None,
        problem=_problem(conditions, status),
        acknowledged=_acknowledged(group, status),
    )


def pod(body: Mapping[str, Any]) -> Pod:
    """A pod of a RayCluster."""
    meta, status = body["metadata"], body.get("status") or {}
    labels = meta.get("labels") or {}
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    containers = status.get("containerStatuses") or []
    started = [
        moment(running.get("startedAt"))
        for container in containers
        if (running := (container.get("state") or {}).get("running")) is not None
    ]
    running = bool(containers) and len(started) == len(containers) and status.get("phase") == "Running"
    return Pod(
        name=meta["name"],
        cluster=labels.get(CLUSTER_LABEL, ""),
        head=labels.get(NODE_TYPE_LABEL) == "head",
        replica=labels.get(REPLICA_LABEL) or meta["name"],
        running=running,
        ready=_true(conditions.get("Ready")),
        terminating=bool(meta.get("deletionTimestamp")),
        # This timestamp is the end of the grace period, not the time at which somebody deleted the pod.
        ends_at=moment(meta.get("deletionTimestamp")),
        created_at=moment(meta.get("creationTimestamp")) or 0.0,
        scheduled_at=moment((conditions.get("PodScheduled") or {}).get("lastTransitionTime"))
        if _true(conditions.get("PodScheduled"))
        else None,
        running_at=max((at for at in started if at is not None), default=None) if running else None,
        waiting=_waiting(status, conditions),
    )


def warned(body: Mapping[str, Any]) -> KubeWarning:
    """A warning Event, of the core API or of the API events.k8s.io."""
    series = body.get("series") or {}
    about = body.get("involvedObject") or body.get("regarding") or {}
    at = series.get("lastObservedTime") or body.get("lastTimestamp") or body.get("eventTime")
    message = body.get("message") or body.get("note") or ""
    return KubeWarning(
        reason=body.get("reason") or "",
        message=message,
        cause=refusal_causes.known(message),
        about=about.get("name", ""),
        at=moment(at or body["metadata"].get("creationTimestamp")) or 0.0,
    )


def _auth_secret(cluster: str, options: Mapping[str, Any]) -> str | None:
    """The Secret with the token. If the spec names none, KubeRay creates one with the RayCluster's name."""
    return str(options.get("secretName") or cluster) if options.get("mode") == "token" else None


def _waiting(status: Mapping[str, Any], conditions: Mapping[str, Any]) -> WaitingReason | None:
    for container in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        waiting = (container.get("state") or {}).get("waiting")
        ended = (container.get("lastState") or {}).get("terminated")
        if waiting and waiting.get("reason") not in {None, "PodInitializing", "ContainerCreating"}:
            reason = _SAME.get(waiting["reason"], waiting["reason"])
            if ended and reason == CRASHED:
                return _crash(ended)
            return WaitingReason(reason=reason, message=waiting.get("message", ""))
        if ended and not container.get("ready") and container.get("restartCount"):
            return _crash(ended)  # the container runs again, but will probably crash again
    placed = conditions.get("PodScheduled")
    if placed and placed.get("status") == "False" and placed.get("reason") == refusal_causes.UNSCHEDULABLE:
        message = placed.get("message", "")
        return WaitingReason(reason=refusal_causes.why_unscheduled(message), message=message)
    return None


def _crash(terminated: Mapping[str, Any]) -> WaitingReason:
    killed = terminated.get("reason") == OOM_KILLED
    return WaitingReason(reason=OOM_KILLED if killed else CRASHED, message=_end(terminated))


def _end(terminated: Mapping[str, Any]) -> str:
    code, why = terminated.get("exitCode"), terminated.get("reason") or ""
    return f"{why}, exit code {code}. {terminated.get('message') or ''}".strip()


def _problem(conditions: Mapping[str, Any], status: Mapping[str, Any]) -> Cause | None:
    for kind, bad in _REFUSED.items():
        condition = conditions.get(kind)
        if condition and condition.get("status") == bad:
            return refusal_causes.refusal(str(condition.get("message") or condition.get("reason") or kind))
    if status.get("state") == "failed":
        return refusal_causes.refusal(str(status.get("reason") or "KubeRay gave no reason"))
    return None


def _acknowledged(group: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether KubeRay has observed the present size of the worker group: ``desiredWorkerReplicas`` then has this size.

    ``observedGeneration`` does not show this: KubeRay writes it only together with another change of the status.
    """
    replicas, hosts = int(group.get("replicas") or 0), int(group.get("numOfHosts") or 1)
    return int(status.get("desiredWorkerReplicas") or 0) in {replicas, replicas * hosts}


def _true(condition: Mapping[str, Any] | None) -> bool:
    return bool(condition) and condition is not None and condition.get("status") == "True"

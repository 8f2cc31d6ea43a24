"""The operator parses answers of Kubernetes and Ray Serve, and caches what the watches report."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from daybreak_server.adapters.kube import client as kube_client
from daybreak_server.adapters.kube import parse
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.adapters.ray import serve_rest
from daybreak_server.domain.causes import Cause
from daybreak_server.ports.cluster import (
    ClusterConflictError,
    ClusterRefusedError,
    ClusterUnavailableError,
    RayCluster,
)

AT = "2026-11-21T00:00:00Z"


def pod(**status: Any) -> dict[str, Any]:
    """A worker pod of Ray, as the Kubernetes API returns it."""
    labels = {
        "daybreak.dev/pool": "video",
        "ray.io/cluster": "video-1",
        "ray.io/node-type": "worker",
        "ray.io/worker-group-replica-name": "ranks-abc",
    }
    return {"metadata": {"name": "w", "creationTimestamp": AT, "labels": labels}, "status": status}


def test_a_pod_runs_since_its_last_container_started() -> None:
    """The pod counts as running whether it is ready or not."""
    first, second = ({"state": {"running": {"startedAt": f"2026-11-21T00:00:0{n}Z"}}} for n in (1, 4))
    parsed = parse.pod(
        pod(
            phase="Running",
            conditions=[
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": AT},
                {"type": "Ready", "status": "False"},
            ],
            containerStatuses=[first, second],
        )
    )
    assert (parsed.running, parsed.ready, parsed.replica, parsed.head) == (True, False, "ranks-abc", False)
    assert parsed.running_at == (parsed.scheduled_at or 0) + 4


def test_a_terminating_pod_has_the_end_of_its_grace_period() -> None:
    """A pod without a deletion timestamp is not terminating."""
    body = pod(phase="Running")
    assert (parse.pod(body).terminating, parse.pod(body).ends_at) == (False, None)
    body["metadata"]["deletionTimestamp"] = "2026-11-21T00:00:30Z"
    terminating = parse.pod(body)
    assert (terminating.terminating, terminating.ends_at) == (True, terminating.created_at + 30)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            },
            "ImagePullBackOff",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
            },
            "Unschedulable",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}],
            },
            None,
        ),
        (
            {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]},
            "ImagePullBackOff",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {
                        "state": {"running": {"startedAt": AT}},
                        "ready": False,
                        "restartCount": 2,
                        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                    }
                ],
            },
            "OOMKilled",
        ),
    ],
)
def test_a_pod_waits_for_a_reason_that_does_not_pass_by_itself(
    status: dict[str, Any], reason: str | None
) -> None:
    """When Kubernetes alternates between two reasons for one cause, the operator always reports the same reason."""
    waiting = parse.pod(pod(**status)).waiting
    assert (waiting.reason if waiting else None) == reason


@pytest.mark.parametrize(
    ("desired", "observed"),
    [({}, False), ({"desiredWorkerReplicas": 0}, False), ({"desiredWorkerReplicas": 4}, True)],
)
def test_kuberay_has_observed_the_spec_when_its_status_counts_all_workers(
    desired: dict[str, Any], observed: bool
) -> None:
    """Two groups of two hosts each are four workers."""
    meta = {"name": "video-1", "uid": "u", "resourceVersion": "5"}
    spec = {"workerGroupSpecs": [{"groupName": "ranks", "replicas": 2, "numOfHosts": 2}]}
    assert parse.ray_cluster({"metadata": meta, "spec": spec, "status": desired}).acknowledged is observed


def test_a_raycluster_is_parsed_with_its_owner_and_its_problem() -> None:
    """The replicas and hosts of a RayCluster are those of its only worker group."""
    parsed = parse.ray_cluster(
        {
            "metadata": {
                "name": "video-1",
                "uid": "u",
                "resourceVersion": "5",
                "labels": {"daybreak.dev/revision": "r"},
                "annotations": {"daybreak.dev/ranks": "4"},
                "ownerReferences": [{"uid": "p", "controller": True}],
            },
            "spec": {
                "suspend": True,
                "workerGroupSpecs": [
                    {
                        "groupName": "ranks",
                        "replicas": 2,
                        "numOfHosts": 2,
                        "scaleStrategy": {"workersToDelete": ["w"]},
                    }
                ],
            },
            "status": {
                "head": {"serviceName": "video-1-head-svc"},
                "conditions": [
                    {"type": "RayClusterSuspended", "status": "True"},
                    {"type": "RayClusterReplicaFailure", "status": "True", "message": "exceeded quota"},
                ],
            },
        }
    )
    assert (parsed.replicas, parsed.hosts, parsed.ranks, parsed.workers_to_delete) == (2, 2, 4, ("w",))
    assert (parsed.owner, parsed.suspend, parsed.suspended) == ("p", True, True)
    quota = Cause(reason="QuotaExceeded", message="exceeded quota")
    assert (parsed.problem, parsed.head_service) == (quota, "video-1-head-svc")


def test_the_cache_drops_deleted_objects_and_finds_the_pool_of_a_warning() -> None:
    """A warning names an object, and the cache knows that object's pool."""
    cache = Cache()
    assert cache.pod(pod(phase="Pending"), gone=False) == "video"
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"name": "w"},
        "reason": "FailedScheduling",
        "message": "0/3 nodes are available",
        "lastTimestamp": AT,
    }
    assert cache.warning(event) == "video"
    assert cache.warning({**event, "involvedObject": {"name": "another"}}) is None
    view = cache.view("video", kuberay=True)
    assert ([pod.name for pod in view.pods], len(view.warnings)) == (["w"], 1)
    cache.pod(pod(), gone=True)
    assert cache.view("video", kuberay=True).pods == ()


def test_a_warning_may_arrive_before_its_object() -> None:
    """Each kind of object has its own watch, and no watch waits for another."""
    cache = Cache()
    event = {"metadata": {"name": "e"}, "involvedObject": {"name": "w"}, "message": "m", "lastTimestamp": AT}
    assert cache.warning(event) is None
    cache.pod(pod(phase="Pending"), gone=False)
    assert [warning.message for warning in cache.view("video", kuberay=True).warnings] == ["m"]


def test_a_list_corrects_what_a_watch_has_missed() -> None:
    """An object that is not in the list is dropped, unless a watch reported the object after the list call began."""
    cache = Cache()
    listed, gone, new = (
        {**pod(), "metadata": {**pod()["metadata"], "name": name}} for name in ("h", "g", "n")
    )
    pools = [{"metadata": {"name": name}} for name in ("video", "other")]
    for body in pools:
        cache.pool(body, gone=False)
    cache.pod(gone, gone=False)
    list_began = time.monotonic()
    cache.pod(new, gone=False)
    cache.listed("pools", pools[:1], began=list_began)
    cache.listed("pods", [listed], began=list_began)
    cache.sweep(began=list_began)
    assert {pod.name for pod in cache.view("video", kuberay=True).pods} == {"h", "n"}
    assert list(cache.pools) == ["video"]


def test_a_watch_event_wins_over_a_list_in_progress() -> None:
    """A list does not undo what a watch event deleted or changed after the list call began. A later list may."""
    cache = Cache()
    changed, gone = ({**pod(), "metadata": {**pod()["metadata"], "name": name}} for name in ("c", "g"))
    pool = {"metadata": {"name": "video"}}
    cache.pod(gone, gone=False)
    cache.pool(pool, gone=False)
    list_began = time.monotonic()
    cache.pod({**changed, "status": {"phase": "Pending"}}, gone=False)
    cache.pod(gone, gone=True)
    cache.pool(pool, gone=True)
    cache.listed("pools", [pool], began=list_began)
    cache.listed("pods", [changed, gone], began=list_began)
    cache.sweep(began=list_began)
    (shown,) = cache.view("video", kuberay=True).pods
    assert (shown.name, shown.running, cache.pools) == ("c", False, {})
    cache.listed("pods", [gone], began=time.monotonic())
    assert {pod.name for pod in cache.view("video", kuberay=True).pods} == {"c", "g"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing Ray raises one
def test_serves_answer_is_parsed_as_rays_own_model_writes_it() -> None:
    """Ranks in the state PENDING_MIGRATION do not count as running."""
    from ray.serve.schema import ReplicaDetails

    states = ["RUNNING", "RUNNING", "PENDING_MIGRATION", "STARTING"]
    replicas = [
        ReplicaDetails(
            node_id="n",
            node_ip="1.2.3.4",
            node_instance_id="w",
            actor_id="a",
            actor_name="x",
            worker_id="i",
            log_file_path="",
            replica_id=f"r{number}",
            state=state,
            start_time_s=0.0,
        ).model_dump(mode="json")
        for number, state in enumerate(states)
    ]
    app = {
        "status": "RUNNING",
        "message": "",
        "deployed_app_config": {"args": {"pool": "video", "attempt": 2}},
        "deployments": {
            "VideoGenerator": {"target_num_replicas": 4, "message": "", "replicas": replicas},
        },
    }
    view = serve_rest.view({"applications": {"video": app}}, application="video")
    assert (view.status, view.attempt, view.target, view.running) == ("RUNNING", 2, 4, 2)
    assert serve_rest.view({"applications": {}}, application="video").status is None


def test_a_head_without_a_service_is_unavailable() -> None:
    """KubeRay creates the service a moment after the RayCluster."""
    with pytest.raises(ClusterUnavailableError):
        serve_rest.in_namespace("default")(RayCluster(name="c", uid="u", resource_version="1"))


def test_a_failed_patch_test_is_a_conflict_and_an_invalid_object_a_refusal() -> None:
    """The error of an invalid object says which fields are invalid. The error of a failed patch test names no field."""
    text = "the server rejected our request due to an error in our request"
    stale = {"reason": "Invalid", "message": text, "details": {}}
    causes = [{"reason": "FieldValueInvalid", "field": "spec.x", "message": "jsonpatch"}]
    wrong = {"reason": "Invalid", "message": "spec.x: Invalid value", "details": {"causes": causes}}
    denied = {"reason": "Invalid", "message": 'admission webhook "v" denied the request: no'}
    for status, kind in (
        (stale, ClusterConflictError),
        (wrong, ClusterRefusedError),
        (denied, ClusterRefusedError),
    ):
        answer = ApiException(status=422, reason="Unprocessable Entity")
        answer.body = json.dumps(status)
        assert type(kube_client._translated(answer)) is kind

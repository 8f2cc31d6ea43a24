"""Which APIs a Kubernetes cluster has, and how KEDA scales its pools, for ``daybreakd doctor``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak_server.adapters.kube.login import connect
from daybreak_server.ports.cluster import ClusterRefusedError, ClusterUnavailableError

TIMEOUT_S = 10.0
T = TypeVar("T")


def api_groups() -> frozenset[str]:
    """The API groups of the cluster (``ray.io``, ``keda.sh``, …). Every account may read them.

    :raises ClusterRefusedError: when there is no account, or it is refused.
    :raises ClusterUnavailableError: when the API server does not answer.
    """
    found = _query(lambda api, _: client.ApisApi(api).get_api_versions(_request_timeout=TIMEOUT_S))
    return frozenset(group.name for group in found.groups)


def scaled_objects() -> tuple[Mapping[str, Any], ...]:
    """KEDA's ScaledObjects in the namespace of this account.

    :raises ClusterRefusedError: when there is no account, when the account may not read ScaledObjects, or when the
        cluster has no KEDA.
    :raises ClusterUnavailableError: when the API server does not answer.
    """
    found = _query(
        lambda api, namespace: client.CustomObjectsApi(api).list_namespaced_custom_object(
            "keda.sh", "v1alpha1", namespace, "scaledobjects", _request_timeout=TIMEOUT_S
        )
    )
    return tuple(found["items"])


def _query(call: Callable[[client.ApiClient, str], T]) -> T:
    api, namespace = connect()
    try:
        return call(api, namespace)
    except ApiException as exc:
        raise ClusterRefusedError(f"the Kubernetes API answers {exc.status} {exc.reason}") from exc
    except HTTPError as exc:
        raise ClusterUnavailableError(f"the Kubernetes API cannot be reached: {exc}") from exc
    finally:
        api.close()

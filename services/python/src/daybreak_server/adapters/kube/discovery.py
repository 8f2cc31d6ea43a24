"""The kinds of objects that a cluster serves, for ``daybreakd doctor``."""

from __future__ import annotations

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak_server.adapters.kube.login import connect
from daybreak_server.ports.cluster import ClusterRefusedError, ClusterUnavailableError

TIMEOUT_S = 10.0


def api_groups() -> frozenset[str]:
    """The API groups of the cluster (``ray.io``, ``keda.sh``, …). Every account may read them.

    :raises ClusterRefusedError: when there is no account, or it is refused.
    :raises ClusterUnavailableError: when the API server does not answer.
    """
    api, _ = connect()
    try:
        found = client.ApisApi(api).get_api_versions(_request_timeout=TIMEOUT_S)
    except ApiException as exc:
        raise ClusterRefusedError(f"the Kubernetes API answers {exc.status} {exc.reason}") from exc
    except HTTPError as exc:
        raise ClusterUnavailableError(f"the Kubernetes API cannot be reached: {exc}") from exc
    finally:
        api.close()
    return frozenset(group.name for group in found.groups)

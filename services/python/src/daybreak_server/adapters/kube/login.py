"""How this process reaches the Kubernetes API: as a pod by its service account, else as a person by a kubeconfig."""

from __future__ import annotations

from pathlib import Path

from kubernetes import client, config

from daybreak_server.ports.cluster import ClusterRefusedError

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECTIONS = 32
"""As many calls as may be under way at once."""


def connect() -> tuple[client.ApiClient, str]:
    """A client, and the namespace that it is at home in.

    :raises ClusterRefusedError: when this is no pod with a service account, and there is no usable kubeconfig.
    """
    settings = client.Configuration()
    settings.retries = False  # whoever calls knows what may be repeated
    settings.connection_pool_maxsize = CONNECTIONS
    try:
        config.load_incluster_config(client_configuration=settings)
        namespace = _POD_NAMESPACE.read_text(encoding="utf-8").strip()
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=settings)
            _, current = config.list_kube_config_contexts()
        except config.ConfigException as exc:
            raise ClusterRefusedError(
                f"this is no pod with a service account, and no kubeconfig can be used (KUBECONFIG): {exc}"
            ) from exc
        namespace = current["context"].get("namespace", "default")
    return client.ApiClient(settings), namespace

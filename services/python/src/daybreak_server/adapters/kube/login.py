"""Connects to the Kubernetes API: in a pod, with the service account of the pod; elsewhere, with a kubeconfig."""

from __future__ import annotations

from pathlib import Path

from kubernetes import client, config

from daybreak_server.ports.cluster import ClusterRefusedError

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECTIONS = 32
"""The maximum number of concurrent calls."""


def connect() -> tuple[client.ApiClient, str]:
    """A client and its default namespace.

    :raises ClusterRefusedError: when there is neither a service account nor a usable kubeconfig.
    """
    settings = client.Configuration()
    settings.retries = False  # callers know which calls may be repeated
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
                f"there is no service account and no usable kubeconfig; set KUBECONFIG: {exc}"
            ) from exc
        namespace = current["context"].get("namespace", "default")
    return client.ApiClient(settings), namespace

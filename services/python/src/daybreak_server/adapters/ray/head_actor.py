"""Actors that live as long as the Ray cluster. They run on the node of its head.

A node that Ray drains waits until no actor is left on it. These actors never end by themselves. On the node of a group,
such an actor would keep the group's pod running until the time for the drain is over.
"""

from __future__ import annotations

from typing import Any

import ray

_HEAD = "node:__internal_head__"
"""A resource that Ray gives to the node of the head. Actors request this resource, because Ray 2.60 ignores a soft node
affinity of actors without a CPU."""


def head_actor(actor: type, *arguments: Any, name: str, namespace: str, **options: Any) -> Any:
    """Return the handle of the detached actor with this name. If there is none, start one that needs no CPU.

    Ray restarts the actor whenever it dies. ``options`` are further options for Ray.
    """
    return (
        ray.remote(actor)
        .options(
            name=name,
            namespace=namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            resources=head_share(ray.nodes()),
            **options,
        )
        .remote(*arguments)
    )


def head_share(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """The resources that an actor requests in order to run on the head. ``nodes`` is the result of ``ray.nodes()``.

    If no node is marked as the head, the result is empty, and Ray may choose any node.
    """
    marked = any(node["Alive"] and _HEAD in node["Resources"] for node in nodes)
    return {_HEAD: 0.001} if marked else {}

"""The CustomResourceDefinition of GeneratorPool, made from its models: one source for schema and code."""

from __future__ import annotations

from typing import Any

from daybreak_server.domain.names import API_APPLICATION, POOL_NAME
from daybreak_server.operator.crd.resource import GROUP, KIND, PLURAL, VERSION, PoolSpec, PoolStatus

NAME = f"{PLURAL}.{GROUP}"
_FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_OPERATORS = ("replicas", "minReplicas", "maxReplicas", "numOfHosts", "groupName", "suspend")
"""Fields of a worker group that the operator sets."""

_POOL_RULES = [
    {
        "rule": f"self.metadata.name.matches('{POOL_NAME}')",
        "message": "a pool's name is at most 31 characters of a-z, 0-9 and -, and begins with a letter: "
        "it is part of its tasks' ids",
    },
    {
        "rule": f"self.metadata.name != '{API_APPLICATION}'",
        "message": f"give the pool another name than {API_APPLICATION}: so is the application of the API called in "
        "Ray Serve, beside the pool's own",
    },
]
_SPEC_RULES = [
    {
        "rule": "self.ranks % self.hostsPerGroup == 0",
        "message": "hostsPerGroup must divide ranks: each host of a group carries as many ranks as the others",
    },
    {
        "rule": "self.resources.gpus <= 1.0 || self.resources.gpus == double(int(self.resources.gpus))",
        "message": "resources.gpus is a part of one GPU or a whole number of them",
    },
]
_WINDOW_RULES = [{"rule": "self.from != self.to", "message": "from and to of a window must differ"}]
_RAY_RULES = [
    {
        "rule": "!has(self.enableInTreeAutoscaling) || !self.enableInTreeAutoscaling",
        "message": "leave enableInTreeAutoscaling out: Ray's autoscaler would fight the operator over replicas",
    },
    {"rule": "!has(self.suspend)", "message": "leave suspend out: the operator sets it (see spec.idle)"},
    {
        "rule": "!has(self.gcsFaultToleranceOptions)",
        "message": "leave gcsFaultToleranceOptions out: tasks live in Daybreak's own Redis, and a head that comes "
        "back with an old state would keep groups that are gone",
    },
]
_WORKER_RULES = [
    {
        "rule": f"!has(self.{name})",
        "message": f"leave {name} out: the operator sets it from the pool's own fields",
    }
    for name in _OPERATORS
]
_COLUMNS = (
    ("Wanted", "integer", ".status.wanted", 0),
    ("Ready", "integer", ".status.ready", 0),
    ("Phase", "string", ".status.phase", 0),
    ("Wake", "string", ".status.wake.phase", 1),
    ("Reason", "string", '.status.conditions[?(@.type=="Healthy")].reason', 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)


def definition() -> dict[str, Any]:
    """The whole manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["gpool"],
                "categories": ["daybreak"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            # The API server stores no 0: who applied it before would differ, and Helm refuse.
                            **({"priority": priority} if priority else {}),
                        }
                        for name, kind, path, priority in _COLUMNS
                    ],
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    spec = _of(PoolSpec, defaults=True)
    spec["x-kubernetes-validations"] = _SPEC_RULES
    spec["properties"]["warmSchedule"]["items"]["x-kubernetes-validations"] = _WINDOW_RULES
    ray = spec["properties"]["rayCluster"]["properties"]
    ray["spec"] = _ray_cluster(ray["spec"]["description"])
    status = _of(PoolStatus, defaults=False)
    conditions = status["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {
        "type": "object",
        "description": "A queue's groups of ranks: so many of them as KEDA asks for, each one process group.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": _POOL_RULES,
    }


def _ray_cluster(description: str) -> dict[str, Any]:
    """KubeRay's own spec is kept as it is; only what rules speak of is declared."""
    worker = {
        **_FREE,
        "required": ["template"],
        "properties": {"template": _FREE, **{name: _declared(name) for name in _OPERATORS}},
        "x-kubernetes-validations": _WORKER_RULES,
    }
    return {
        **_FREE,
        "description": description,
        "required": ["headGroupSpec", "workerGroupSpecs"],
        "properties": {
            "headGroupSpec": _FREE,
            "workerGroupSpecs": {"type": "array", "minItems": 1, "maxItems": 1, "items": worker},
            "enableInTreeAutoscaling": {"type": "boolean"},
            "suspend": {"type": "boolean"},
            "gcsFaultToleranceOptions": _FREE,
        },
        "x-kubernetes-validations": _RAY_RULES,
    }


def _declared(name: str) -> dict[str, Any]:
    kinds = {"groupName": "string", "suspend": "boolean"}
    return {"type": kinds.get(name, "integer")}


def _of(model: type[PoolSpec] | type[PoolStatus], *, defaults: bool) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}), defaults=defaults)


def _structural(node: dict[str, Any], shared: dict[str, Any], *, defaults: bool) -> dict[str, Any]:
    """pydantic's schema as Kubernetes takes it: no references, no unions with null, no titles."""
    node = dict(node)
    if "$ref" in node:
        node = {**shared[node.pop("$ref").rpartition("/")[2]], **node}
    if "anyOf" in node:
        (only,) = [one for one in node.pop("anyOf") if one.get("type") != "null"]
        outer = {name: value for name, value in node.items() if name != "default"}
        return _structural({**only, **outer}, shared, defaults=defaults)
    made = {
        name: value
        for name, value in node.items()
        if name in {"type", "format", "enum", "pattern", "minimum", "maximum", "description"}
        or name in {"minLength", "maxLength", "minItems", "maxItems"}
    }
    if defaults and node.get("default") is not None:
        made["default"] = node["default"]
    if "items" in node:
        made["items"] = _structural(node["items"], shared, defaults=defaults)
    if "properties" in node:
        made["properties"] = {
            name: _structural(one, shared, defaults=defaults) for name, one in node["properties"].items()
        }
        if node.get("required"):
            made["required"] = node["required"]
        elif defaults:
            made["default"] = {}  # so that its members' defaults are filled in where it is left out
    elif isinstance(node.get("additionalProperties"), dict):
        made["additionalProperties"] = _structural(node["additionalProperties"], shared, defaults=defaults)
    return made

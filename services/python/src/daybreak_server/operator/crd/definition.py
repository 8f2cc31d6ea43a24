"""Generates the CustomResourceDefinition of GeneratorPool from the pydantic models that the operator uses."""

from __future__ import annotations

from typing import Any

from daybreak_server.domain.names import API_APPLICATION, POOL_NAME
from daybreak_server.operator.crd.resource import KIND, PLURAL, PoolSpec, PoolStatus
from daybreak_server.ports.cluster import API_GROUP, API_VERSION

NAME = f"{PLURAL}.{API_GROUP}"
_FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_OPERATORS = ("replicas", "minReplicas", "maxReplicas", "numOfHosts", "groupName", "suspend")
"""Worker group fields that a GeneratorPool must not contain, because only the operator may set them."""

_POOL_RULES = [
    {
        "rule": f"self.metadata.name.matches('{POOL_NAME}')",
        "message": "a pool's name has at most 31 characters of a-z, 0-9 and -, and begins with a letter: "
        "it is part of its tasks' ids",
    },
    {
        "rule": f"self.metadata.name != '{API_APPLICATION}'",
        "message": f"choose a name other than {API_APPLICATION}: the API's application in Ray Serve has that name",
    },
]
_SPEC_RULES = [
    {
        "rule": "self.ranks % self.hostsPerGroup == 0",
        "message": "hostsPerGroup must divide ranks: every host of a group runs the same number of ranks",
    },
    {
        "rule": "self.resources.gpus <= 1.0 || self.resources.gpus == double(int(self.resources.gpus))",
        "message": "resources.gpus must be a fraction of one GPU or a whole number of GPUs",
    },
    {
        "rule": "!has(self.targetLoad) || !has(self.kind) || self.kind in ['online', 'sessions']",
        "message": "remove targetLoad, or set kind to online or sessions: only these pools have requests or sessions",
    },
    {
        "rule": "!has(self.kind) || self.kind != 'sessions' || self.ranks == 1",
        "message": "set ranks to 1: a group that holds sessions has one rank",
    },
]
_WINDOW_RULES = [{"rule": "self.from != self.to", "message": "from and to of a window must differ"}]
_RAY_RULES = [
    {
        "rule": "!has(self.enableInTreeAutoscaling) || !self.enableInTreeAutoscaling",
        "message": "remove enableInTreeAutoscaling: Ray's autoscaler would fight the operator over replicas",
    },
    {"rule": "!has(self.suspend)", "message": "remove suspend: the operator sets it (see spec.idle)"},
    {
        "rule": "!has(self.gcsFaultToleranceOptions)",
        "message": "remove gcsFaultToleranceOptions: tasks live in Daybreak's own Redis, and a head that restarts "
        "with old state would keep groups that no longer exist",
    },
]
_WORKER_RULES = [
    {
        "rule": f"!has(self.{name})",
        "message": f"remove {name}: only the operator may set it",
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
    """The manifest."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME},
        "spec": {
            "group": API_GROUP,
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
                    "name": API_VERSION,
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
                            # The API server drops a priority of 0. Helm then refuses the definition,
                            # because it differs from the stored one.
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
    spec = _schema_of(PoolSpec, defaults=True)
    spec["x-kubernetes-validations"] = _SPEC_RULES
    spec["properties"]["warmSchedule"]["items"]["x-kubernetes-validations"] = _WINDOW_RULES
    ray = spec["properties"]["rayCluster"]["properties"]
    ray["spec"] = _ray_cluster(ray["spec"]["description"])
    status = _schema_of(PoolStatus, defaults=False)
    conditions = status["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    return {
        "type": "object",
        "description": "A pool: groups of ranks that serve one queue. KEDA sets the number of groups; "
        "each is one process group.",
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
    """The schema of KubeRay's spec. It allows all fields, and declares only those that it requires or has rules for."""
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


def _schema_of(model: type[PoolSpec] | type[PoolStatus], *, defaults: bool) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(schema, schema.get("$defs", {}), defaults=defaults)


def _structural(node: dict[str, Any], shared: dict[str, Any], *, defaults: bool) -> dict[str, Any]:
    """Reduce pydantic's schema to what Kubernetes accepts: no references, no unions with null, no titles."""
    node = dict(node)
    if "$ref" in node:
        node = {**shared[node.pop("$ref").rpartition("/")[2]], **node}
    if "anyOf" in node:
        (only,) = [branch for branch in node.pop("anyOf") if branch.get("type") != "null"]
        outer = {name: value for name, value in node.items() if name != "default"}
        return _structural({**only, **outer}, shared, defaults=defaults)
    structural = {
        name: value
        for name, value in node.items()
        if name in {"type", "format", "enum", "pattern", "minimum", "maximum", "description"}
        or name in {"minLength", "maxLength", "minItems", "maxItems"}
    }
    if defaults and node.get("default") is not None:
        structural["default"] = node["default"]
    if "items" in node:
        structural["items"] = _structural(node["items"], shared, defaults=defaults)
    if "properties" in node:
        structural["properties"] = {
            name: _structural(child, shared, defaults=defaults) for name, child in node["properties"].items()
        }
        if node.get("required"):
            structural["required"] = node["required"]
        elif defaults:
            structural["default"] = {}  # so that the properties get their defaults if the object is absent
    elif isinstance(node.get("additionalProperties"), dict):
        structural["additionalProperties"] = _structural(
            node["additionalProperties"], shared, defaults=defaults
        )
    return structural

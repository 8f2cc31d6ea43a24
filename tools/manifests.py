"""Makes the plain manifests of deploy/keda and deploy/raycluster from the Helm chart; needs ``helm`` on PATH.

``deploy/keda`` is the chart as it is rendered. ``deploy/raycluster`` is a Daybreak of fixed size: instead of the
operator and GeneratorPools it has the RayCluster that the operator would make of the pool, by the operator's own
code, and a sidecar that puts the Serve applications. ``--check`` shows what would change, and exits 1; without
``helm`` it says so and exits 0.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import drift
import yaml

from daybreak_server.operator.crd.resource import GeneratorPool
from daybreak_server.operator.planner import render

DEPLOY = Path(__file__).parent.parent / "deploy"
CHART = DEPLOY / "helm" / "daybreak"
NAMESPACE = "daybreak"
FIXED_POOL, FIXED_GROUPS = "video", 1
HEAD = "# Made by tools/manifests.py from deploy/helm/daybreak: change that, not this.\n"
PLAIN_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")
"""Of Helm, or of a release: left out of what people apply."""
VALUES: dict[str, Any] = {
    "image": {"repository": "daybreak", "tag": "dev"},
    "artifacts": {
        "url": "s3://daybreak/results",
        "s3": {
            "endpointUrl": f"http://s3.{NAMESPACE}.svc:7070",
            "region": "us-east-1",
            "pathStyle": True,
            "presign": False,
            "existingSecret": "daybreak-s3",
        },
    },
    "redis": {
        "existingSecret": "daybreak-redis",
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
    },
    "rayToken": {"existingSecret": "daybreak-ray-token"},
    # All of it fits a small machine; what it may use at most is left as the chart has it.
    "gateway": {"resources": {"requests": {"cpu": "50m"}}},
    "poolDefaults": {
        "maxGroups": 1,
        "head": {"resources": {"requests": {"cpu": "200m", "memory": "1Gi"}}},
        "worker": {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
    },
}
SETTINGS_MARK = "daybreak.dev/settings"
OPERATOR_ONLY = ("Role", "RoleBinding", "GeneratorPool", "ScaledObject", "TriggerAuthentication")
Object = dict[str, Any]


class _Plain(yaml.SafeDumper):
    """Without anchors, and long texts as blocks: people read these."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Plain.add_representer(str, _text)


def rendered() -> list[Object]:
    """The chart's objects, without what Helm alone has use for."""
    command = ["helm", "template", "daybreak", str(CHART), "--namespace", NAMESPACE, "--no-hooks"]
    command += ["--api-versions", "keda.sh/v1alpha1", "--values", "-"]
    made = subprocess.run(command, input=json.dumps(VALUES), text=True, capture_output=True, check=True)
    return [_plain(one) for one in yaml.safe_load_all(made.stdout) if one]


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _plain(one) for name, one in node.items() if name not in PLAIN_LABELS}
    return [_plain(one) for one in node] if isinstance(node, list) else node


def _named(objects: list[Object], kind: str, name: str) -> Object:
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


def namespace() -> Object:
    """The namespace, with the restricted Pod Security level that everything here keeps."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def keda(objects: list[Object]) -> dict[str, list[Object]]:
    """Files of deploy/keda."""
    pools = [one for one in objects if one["kind"] == "GeneratorPool"]
    scaling = [one for one in objects if one["kind"] in {"ScaledObject", "TriggerAuthentication"}]
    rest = [one for one in objects if one not in pools and one not in scaling]
    return {
        "00-namespace.yaml": [namespace()],
        "10-daybreak.yaml": rest,
        "20-generatorpools.yaml": pools,
        "30-scaledobjects.yaml": scaling,
    }


def raycluster(objects: list[Object]) -> dict[str, list[Object]]:
    """Files of deploy/raycluster."""
    pool = GeneratorPool.read(_with_uid(_named(objects, "GeneratorPool", FIXED_POOL)))
    return {
        "00-namespace.yaml": [namespace()],
        "10-daybreak.yaml": [_without_others(one) for one in objects if _is_fixed(one)],
        "20-raycluster.yaml": [_serve_config(pool), _fixed(pool)],
    }


def _with_uid(body: Object) -> Object:
    return {**body, "metadata": {**body["metadata"], "uid": "none"}}


def _is_fixed(one: Object) -> bool:
    """Whether a Daybreak without operator and KEDA has use for it."""
    name = one["metadata"]["name"]
    of_others = name in {f"{NAMESPACE}-operator", f"{NAMESPACE}-pool-echo"}
    return one["kind"] not in OPERATOR_ONLY and not of_others


def _without_others(one: Object) -> Object:
    """The settings file names only the pool that is there, and the gateway is started anew when it changes."""
    made = copy.deepcopy(one)
    if one["metadata"]["name"] == f"{NAMESPACE}-config":
        settings = yaml.safe_load(made["data"]["daybreak.yaml"])
        settings["pools"] = {FIXED_POOL: {**settings["pools"][FIXED_POOL], "groups": FIXED_GROUPS}}
        made["data"]["daybreak.yaml"] = yaml.safe_dump(settings)
    elif one["kind"] == "Deployment":
        marks = made["spec"]["template"]["metadata"]["annotations"]
        marks[SETTINGS_MARK] = hashlib.sha256(f"{marks[SETTINGS_MARK]} fixed".encode()).hexdigest()
    return made


def _fixed(pool: GeneratorPool) -> Object:
    """The RayCluster, with its number of groups for good."""
    made = render.cluster(pool, replicas=FIXED_GROUPS, suspend=False)
    meta = made["metadata"]
    made["metadata"] = {"name": pool.name, "namespace": NAMESPACE, "labels": meta["labels"]}
    del made["spec"]["suspend"]
    group = made["spec"]["workerGroupSpecs"][0]
    group.update(minReplicas=FIXED_GROUPS, maxReplicas=FIXED_GROUPS)
    head = made["spec"]["headGroupSpec"]["template"]["spec"]
    head["containers"].append(_keeper(head["containers"][0], made["spec"]["authOptions"]["secretName"]))
    head["volumes"].append({"name": "serve", "configMap": {"name": f"{NAMESPACE}-serve"}})
    return _plain_labels(made)


def _plain_labels(made: Object) -> Object:
    """A revision means nothing where nobody renews anything."""
    templates = [made["spec"]["headGroupSpec"], *made["spec"]["workerGroupSpecs"]]
    for labels in (made["metadata"]["labels"], *(one["template"]["metadata"]["labels"] for one in templates)):
        labels.pop("daybreak.dev/revision", None)
    return made


def _keeper(ray: Object, token: str) -> Object:
    return {
        "name": "keeper",
        "image": ray["image"],
        "imagePullPolicy": ray["imagePullPolicy"],
        "command": ["python", "/etc/daybreak-serve/keeper.py", "/etc/daybreak-serve/applications.json"],
        "env": [
            {
                "name": "RAY_AUTH_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": token, "key": "auth_token"}},
            }
        ],
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "128Mi"},
        },
        "securityContext": ray["securityContext"],
        "volumeMounts": [{"name": "serve", "mountPath": "/etc/daybreak-serve", "readOnly": True}],
    }


def _serve_config(pool: GeneratorPool) -> Object:
    """What the sidecar puts: the operator's applications, with as many groups as there are hosts for."""
    config = render.applications(pool, 1)
    for one in config["applications"]:
        one.pop("external_scaler_enabled", None)
        if one["name"] == pool.name:
            one["args"]["groups"] = FIXED_GROUPS
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{NAMESPACE}-serve", "namespace": NAMESPACE},
        "data": {
            "applications.json": json.dumps(config, indent=2) + "\n",
            "keeper.py": (DEPLOY / "raycluster" / "keeper.py").read_text(encoding="utf-8"),
        },
    }


def files() -> dict[Path, str]:
    """What is made: path and text."""
    objects = rendered()
    made: dict[Path, str] = {}
    for folder, parts in (("keda", keda(objects)), ("raycluster", raycluster(objects))):
        for name, part in parts.items():
            text = yaml.dump_all(part, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)
            made[DEPLOY / folder / name] = HEAD + text
    return made


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is stale")
    check = parser.parse_args().check
    if shutil.which("helm") is None:
        print("tools/manifests.py: helm is not on PATH, so the plain manifests were not looked at")
        return 0 if check else 1
    return drift.settle(files(), check=check, tool="tools/manifests.py")


if __name__ == "__main__":
    sys.exit(main())

"""``python -m e2e --list | --core | --full [pytest's options]``."""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def main() -> int:
    """List the tests, or run those that the command line selects.

    :returns: the exit code: pytest's, or 2 if a prerequisite is missing.
    """
    parser = argparse.ArgumentParser(prog="python -m e2e", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--list", action="store_true", help="list the tests and what each of them proves")
    mode.add_argument(
        "--core", action="store_true", help="run the tests that every change must pass (about 15 minutes)"
    )
    mode.add_argument("--full", action="store_true", help="run all tests")
    options, pytest_options = parser.parse_known_args()
    if options.list:
        for core, name, proves in tests():
            print(f"{'*' if core else ' '} {name}\n      {proves}")
        print("\n* core")
        return 0
    missing = "\n".join(missing_prerequisites())
    if missing:
        print(f"e2e cannot run:\n{missing}", file=sys.stderr)
        return 2
    selection = ["-m", "core"] if options.core else []
    return int(pytest.main(["-c", str(HERE / "pytest.ini"), str(HERE), *selection, *pytest_options]))


def tests() -> Iterator[tuple[bool, str, str]]:
    """For each test: whether it is a core test, its name, and what it proves. Needs no cluster, only the source."""
    for path in sorted(HERE.glob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        core = "pytest.mark.core" in ast.unparse(module)
        for node in module.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield core, f"{path.name}::{node.name}", " ".join((ast.get_docstring(node) or "").split())


def missing_prerequisites() -> Iterator[str]:
    """A line for each prerequisite that is missing."""
    for tool in ("helm", "kubectl"):
        if shutil.which(tool) is None:
            yield f"- {tool} is not on PATH"
    from kubernetes import client, config
    from urllib3.exceptions import HTTPError

    try:
        config.load_kube_config()
        groups = {group.name for group in client.ApisApi().get_api_versions(_request_timeout=10).groups}
    except (config.ConfigException, client.ApiException, HTTPError, OSError) as exc:
        yield f"- the cluster of KUBECONFIG does not respond: {exc}"
        return
    for group, provider in (
        ("ray.io", "KubeRay"),
        ("keda.sh", "KEDA"),
        ("external.metrics.k8s.io", "KEDA's metrics"),
    ):
        if group not in groups:
            yield f"- the cluster has no API {group}: install {provider}"


if __name__ == "__main__":
    sys.exit(main())

"""Writes deploy/crd/generatorpools.yaml, the CustomResourceDefinition of GeneratorPool, from its models.

``python tools/crd.py`` writes it; ``--check`` shows what would change, and exits 1 when it is stale.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import sys
from pathlib import Path

import yaml

from daybreak_server.operator.crd.definition import definition

PATH = Path(__file__).parent.parent / "deploy" / "crd" / "generatorpools.yaml"
HEAD = "# Made by tools/crd.py from daybreak_server/operator/crd/resource.py: change that, not this.\n"


class _Plain(yaml.SafeDumper):
    """Without anchors: Kubernetes' tools show them as they are."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def document() -> str:
    """The manifest as text. Its annotation tells one definition from another, as the chart asks before an upgrade."""
    made = definition()
    digest = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    made["metadata"]["annotations"] = {"daybreak.dev/definition": digest}
    return HEAD + yaml.dump(made, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


def main() -> int:
    """Write or check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the file is stale")
    made = document()
    if not parser.parse_args().check:
        PATH.parent.mkdir(parents=True, exist_ok=True)
        PATH.write_text(made, encoding="utf-8")
        return 0
    found = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
    if found == made:
        return 0
    before, after = found.splitlines(keepends=True), made.splitlines(keepends=True)
    sys.stdout.writelines(difflib.unified_diff(before, after, str(PATH.name), "as the code has it", n=2))
    print(f"{PATH.name} is stale: run `python tools/crd.py` and commit it with what changed it.")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""Applies one CustomResourceDefinition from inside the cluster, with server-side apply.

The script imports only the standard library.
"""

import ssl
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAME = "generatorpools.daybreak.dev"
PATH = (
    f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}?fieldManager=daybreak-chart&force=true"
)

request = Request(
    f"https://kubernetes.default.svc{PATH}",
    data=Path(sys.argv[1]).read_bytes(),
    method="PATCH",
    headers={
        "Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}",
        "Content-Type": "application/apply-patch+yaml",
    },
)
try:
    with urlopen(
        request, context=ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")), timeout=30
    ) as answer:
        print(f"{NAME}: applied ({answer.status})")
except HTTPError as error:
    sys.exit(f"{NAME}: {error.code} {error.read().decode()}")

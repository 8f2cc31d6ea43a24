"""An S3 server in the tests' namespace: versitygw on a folder that lives as long as its pod."""

from __future__ import annotations

import secrets
from typing import Any

import boto3
from botocore.config import Config

from testkit.kubernetes import manifests

NAME = "s3"
PORT = 7070
BUCKET = "daybreak"
REGION = "us-east-1"
SECRET = "s3-credentials"  # the name of the Secret


class Credentials:
    """New credentials for each run."""

    def __init__(self) -> None:
        self.access = "e2e"
        self.secret = secrets.token_hex(16)


def objects(credentials: Credentials, image: str) -> list[dict[str, Any]]:
    """Secret, Deployment and Service."""
    labels = {"app": NAME}
    arguments = ["--access", credentials.access, "--secret", credentials.secret, "--region", REGION]
    container = {
        "name": NAME,
        "image": image,
        "args": [*arguments, "--port", f":{PORT}", "posix", "/data"],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    pod = manifests.pod_spec(container, user=65532, data={"emptyDir": {}})
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    keys = {"AWS_ACCESS_KEY_ID": credentials.access, "AWS_SECRET_ACCESS_KEY": credentials.secret}
    return [manifests.secret(SECRET, keys), deployment, manifests.service(NAME, PORT)]


def connect(url: str, credentials: Credentials) -> Any:
    """A boto3 client of the server."""
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=credentials.access,
        aws_secret_access_key=credentials.secret,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10, "mode": "standard"}),
    )


def keys(store: Any, prefix: str) -> list[str]:
    """All keys below a prefix."""
    pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

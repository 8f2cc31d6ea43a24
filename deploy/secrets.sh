#!/bin/sh
# Creates the Secrets that the plain manifests use, with random values where none are given. Existing Secrets stay as they are.
#   deploy/secrets.sh [NAMESPACE]
# If you do not use the S3 server of deploy/s3, first set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to your S3 keys.
set -eu
namespace=${1:-daybreak}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace"
make() {
  name=$1
  shift
  if kubectl -n "$namespace" get secret "$name" >/dev/null 2>&1; then
    echo "secret/$name already exists"
  else
    kubectl -n "$namespace" create secret generic "$name" "$@"
  fi
}
make daybreak-redis "--from-literal=password=$(random)"
make daybreak-ray-token "--from-literal=auth_token=$(random)"
make daybreak-s3 "--from-literal=AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-daybreak}" \
  "--from-literal=AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-$(random)}"

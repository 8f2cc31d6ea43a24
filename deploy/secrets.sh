#!/bin/sh
# Makes the Secrets that the plain manifests name, with random values, where they are not there yet:
#   deploy/secrets.sh [NAMESPACE]
# For an S3 of your own set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY first.
set -eu
namespace=${1:-daybreak}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace"
make() {
  name=$1
  shift
  if kubectl -n "$namespace" get secret "$name" >/dev/null 2>&1; then
    echo "secret/$name is there already"
  else
    kubectl -n "$namespace" create secret generic "$name" "$@"
  fi
}
make daybreak-redis "--from-literal=password=$(random)"
make daybreak-ray-token "--from-literal=auth_token=$(random)"
make daybreak-s3 "--from-literal=AWS_ACCESS_KEY_ID=${AWS_ACCESS_KEY_ID:-daybreak}" \
  "--from-literal=AWS_SECRET_ACCESS_KEY=${AWS_SECRET_ACCESS_KEY:-$(random)}"

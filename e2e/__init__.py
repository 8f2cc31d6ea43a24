"""End to end, black-box: through HTTP and the Kubernetes API only, against the cluster that KUBECONFIG names.

It needs `helm` and `kubectl` on PATH, KubeRay and KEDA in the cluster, and the image in the nodes' stores (or
in a registry that they reach). It makes one namespace of its own, and removes it. `python -m e2e --list`.
"""

"""End to end, black-box: through HTTP and the Kubernetes API only, against the cluster that KUBECONFIG names.

It needs `helm` and `kubectl` on PATH, KubeRay and KEDA in the cluster, and the image in the nodes' stores (or
in a registry that they reach). It makes namespaces of its own, and removes them. `python -m e2e --list`.

The upgrade's test wants a second image, `--next-image`. Another name of the same build is enough, as the chart knows
images by their names: `make image IMAGE=daybreak:next`. An upgrade from an older commit, and back, wants that one's
image and chart: `make previous PREVIOUS=<commit>`.
"""

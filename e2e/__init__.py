"""End-to-end tests: black-box, through HTTP and the Kubernetes API, on the cluster that KUBECONFIG names.

They need `helm` and `kubectl` on PATH, KubeRay and KEDA in the cluster, and Daybreak's image in the nodes'
image stores or in a registry that the nodes can reach. They create their own namespaces and remove them.
`python -m e2e --list` lists the tests.

The upgrade test needs a second image, `--next-image`. The same build under a second name is enough
(`make image IMAGE=daybreak:next`), because the chart compares images by name. The test that upgrades from an older
commit, and goes back to it, needs the image and chart of that commit: `make previous PREVIOUS=<commit>`.
"""

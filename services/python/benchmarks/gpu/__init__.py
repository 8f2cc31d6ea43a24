"""``python -m benchmarks.gpu``: time and memory of Wan models of true shape on a GPU."""

"""``python -m verification.benchmarks.gpu``: time and memory of Wan models of true shape on a GPU."""

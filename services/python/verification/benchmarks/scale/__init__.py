"""The operator beside hundreds of pools and thousands of pods, on nodes that kwok plays."""

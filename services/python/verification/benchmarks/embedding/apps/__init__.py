"""The apps of the peers, each as its documents show it. They run in the environment of their peer."""

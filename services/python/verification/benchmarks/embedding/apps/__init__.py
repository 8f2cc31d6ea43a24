"""The apps of the peers, each written as in its documentation. They run in the environment of their peer."""

"""Real servers, ports, waits and small workloads that tests, verification and e2e share."""

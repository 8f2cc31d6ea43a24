"""What tracing costs: submits and steps with it off and on, in one run."""

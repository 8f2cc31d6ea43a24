"""What the outside really is: one package an outside system, each importing its one client library."""

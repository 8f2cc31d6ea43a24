"""One module for each queue. Workers import the no-op task from it. Run as a program, the module is the producer."""

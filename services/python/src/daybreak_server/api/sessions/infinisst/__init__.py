"""The HTTP APIs of InfiniSST, so that its clients work with Daybreak unchanged.

InfiniSST is a system for simultaneous translation of unbounded speech. It has two APIs: one of its serving system, and
one of its scheduler.
"""

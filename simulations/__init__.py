"""Federations on one machine: the engine of `hanse simulate`, the benchmarks, and the example federations."""

"""A lab out of Docker containers, made by kind: for machines that have Docker."""

from simulations.lab.kind.provider import Kind, missing

__all__ = ["Kind", "missing"]

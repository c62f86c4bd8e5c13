"""Flower apps as files: packing and unpacking them, their configuration, whether they import.

Shared by the coordinator, the edge agent and the commands. Nothing here imports Flower, so that
asking about an app costs milliseconds.
"""

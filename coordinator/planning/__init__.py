"""Deciding, purely: who takes part, what should run, what status says."""

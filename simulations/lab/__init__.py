"""A hub and edge clusters on one machine: real Kubernetes, for trying Hanse and for its tests."""

"""Brings the objects of a bucket to where an edge's clients mount them; a program for a pod of its own.

The pod is the only one with the owner's Secret and a way to the storage. This package refuses to know
Kubernetes.
"""

"""A lab out of this machine's own namespaces: no Docker, no registry, real Kubernetes programs."""

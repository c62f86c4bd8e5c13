"""The hub as a Kubernetes operator: what kopf sees goes into the controller's caches."""

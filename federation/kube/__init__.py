"""The only room that talks to a Kubernetes API server; everything else speaks through it, in JSON objects."""

"""The Kubernetes API as both sides use it: the only room that imports the Kubernetes client."""

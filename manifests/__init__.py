"""The manifests that install Hanse, for kustomize and for `hanse join`: data, no code."""

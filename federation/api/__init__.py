"""The resources: typed models, the CRDs made from them, validation without Kubernetes, reading manifests."""

"""The registry of kinds: the one list that CRDs, validation and manifests are made from."""

from __future__ import annotations

from federation.api import cluster, dataset, meta, policy, training

KINDS: dict[str, type[meta.Resource]] = {
    resource.INFO.kind: resource
    for resource in (training.FederatedTraining, cluster.EdgeCluster, dataset.EdgeDataset, policy.EdgePolicy)
}

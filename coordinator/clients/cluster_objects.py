"""The few objects of a cluster that the hub reads or makes besides its own kinds: the CA's Secret, apps in
ConfigMaps, claims for models, its own pod's label.

This module refuses to know when they are wanted.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import Any

from coordinator.clients import authority
from coordinator.issuing import certificate_authority
from federation.kube import client, errors
from federation.telemetry import logs
from federation.trust import certificates, keys
from federation.trust import identity as identities

_log = logs.get_logger(__name__)

LEADER_LABEL = "hanse.dev/leader"
AGGREGATOR_ACCOUNT = "hanse-aggregator"


class CaUnusable(Exception):
    """The federation's CA cannot be used; the text is one sentence with the next step."""


class ClusterObjects:
    """What the hub asks the API server for, beside the store and the runtime."""

    def __init__(self, api: client.Client) -> None:
        """Use a client, which stays the caller's to close."""
        self._api = api

    async def ca(
        self,
        namespace: str,
        name: str,
        trust_domain: str,
        *,
        create: bool,
        now: datetime,
        new_serial: Callable[[], int],
    ) -> certificate_authority.CertificateAuthority:
        """Return the CA of a `kubernetes.io/tls` Secret; `create` it if there is none.

        Raises: CaUnusable, KubernetesError.
        """
        title = f"Secret {namespace}/{name}"
        for _ in range(2):
            try:
                return _ca_of(await self._api.get("Secret", name, namespace), title, trust_domain)
            except errors.NotFound as error:
                if not create:
                    raise CaUnusable(
                        f"{title} does not exist yet; cert-manager makes it from its Certificate, see "
                        f"`kubectl describe certificate -n {namespace}`"
                    ) from error
            made = authority.create(trust_domain, now=now, new_serial=new_serial)
            try:
                await self._api.create(_secret_of(made, namespace, name))
            except errors.AlreadyExists:
                continue  # another replica was faster: its CA it is
            _log.info("certificate authority made", name=title)
            return made
        raise CaUnusable(f"{title} comes and goes; look who deletes it")

    async def config_map(self, namespace: str, name: str, key: str) -> bytes | None:
        """Return what a ConfigMap holds under a key, or None. Raises: KubernetesError."""
        try:
            found = await self._api.get("ConfigMap", name, namespace)
        except errors.NotFound:
            return None
        if (packed := (found.get("binaryData") or {}).get(key)) is not None:
            return base64.b64decode(packed)
        text = (found.get("data") or {}).get(key)
        return None if text is None else str(text).encode()

    async def service_ip(self, namespace: str, name: str) -> str:
        """Return a Service's address, or an empty text if there is none. Raises: KubernetesError."""
        try:
            found = await self._api.get("Service", name, namespace)
        except errors.NotFound:
            return ""
        address = str(found["spec"].get("clusterIP") or "")
        return "" if address == "None" else address

    async def ensure_claim(self, namespace: str, name: str, size: str, storage_class: str) -> None:
        """Make the claim for models if it is not there. Raises: KubernetesError."""
        try:
            await self._api.get("PersistentVolumeClaim", name, namespace)
            return
        except errors.NotFound:
            pass
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        }
        if storage_class:
            spec["storageClassName"] = storage_class
        try:
            await self._api.create(_object("v1", "PersistentVolumeClaim", namespace, name) | {"spec": spec})
        except errors.AlreadyExists:
            return

    async def ensure_account(self, namespace: str) -> None:
        """Make the service account of aggregators, which may do nothing. Raises: KubernetesError."""
        account = _object("v1", "ServiceAccount", namespace, AGGREGATOR_ACCOUNT)
        await self._api.apply(account | {"automountServiceAccountToken": False})

    async def lead(self, namespace: str, pod: str, leads: bool) -> None:
        """Put the leader's label on our own pod, or take it off; without a pod there is nothing to do.

        Raises: KubernetesError.
        """
        labels = {LEADER_LABEL: "true" if leads else None}
        try:
            await self._api.patch("Pod", pod, namespace, {"metadata": {"labels": labels}})
        except errors.NotFound:
            _log.warning("no such pod, so no Service leads here", name=f"{namespace}/{pod}")


def _object(api_version: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/managed-by": "hanse"}
    metadata = {"namespace": namespace, "name": name, "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _secret_of(ca: certificate_authority.CertificateAuthority, namespace: str, name: str) -> dict[str, Any]:
    parts = {
        "tls.crt": ca.certificate_pem,
        "tls.key": keys.to_pem(ca.key),
        "ca.crt": ca.certificate_pem,
    }
    data = {key: base64.b64encode(pem).decode() for key, pem in parts.items()}
    return _object("v1", "Secret", namespace, name) | {"type": "kubernetes.io/tls", "data": data}


def _ca_of(
    secret: dict[str, Any], title: str, trust_domain: str
) -> certificate_authority.CertificateAuthority:
    data = secret.get("data") or {}
    try:
        chain, key = (
            base64.b64decode(data.get(name) or "", validate=True) for name in ("tls.crt", "tls.key")
        )
        certificate = certificates.load(chain)[0]
        return certificate_authority.load(certificate, keys.from_pem(key), trust_domain)
    except (
        binascii.Error,
        certificates.InvalidCertificate,
        certificate_authority.AuthorityUnusable,
        identities.InvalidIdentity,
        keys.InvalidKey,
    ) as error:
        raise CaUnusable(
            f"{title} is no CA for the federation: {error}; put tls.crt (CA:TRUE) and tls.key (ECDSA P-256) "
            f"of trust domain {trust_domain} there, or delete it to have one made"
        ) from error

"""S3-compatible storage: how a bucket is opened, and what its refusals mean, in sentences.

The hub keeps models there, and an edge's owner may keep data there. A Secret's keys open it, each named as
Amazon's own tools name the environment variable. Values of a Secret never go into a message: of what a server
or the library says, only codes that are known here are used. This module refuses to know what is stored.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

KEY_ID, KEY, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
ENDPOINT, REGIONS = "AWS_ENDPOINT_URL", ("AWS_REGION", "AWS_DEFAULT_REGION")
CA: Final = "ca.crt"
"""Of a Secret: the PEM certificates of the authority that the storage's own certificate is from."""

KNOWN: Final = (KEY_ID, KEY, TOKEN, ENDPOINT, *REGIONS, CA)

DEFAULT_REGION = "us-east-1"  # what servers that have no regions expect
REQUEST_SECONDS = 300.0
"""A request carries 10 MiB at most; a line that needs longer for it is of no use for models."""
PATIENCE_SECONDS = 180.0
"""How long a write is tried again while the storage is away; all rounds are done by then."""


@dataclasses.dataclass(frozen=True, slots=True)
class Terms:
    """Where a user would correct what a server refuses.

    place: the field that names the bucket. secret: the Secret and the field that names it. rights: what the
    key must be allowed to do.
    """

    place: str
    secret: str
    rights: str


MODELS = Terms(
    "spec.model.store",
    "the Secret that spec.model.credentials names",
    "s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket",
)
DATA = Terms(
    "spec.volume.s3.url",
    "the Secret that spec.volume.s3.secretName names",
    "s3:GetObject and s3:ListBucket",
)


class Incomplete(ValueError):
    """What is given does not open a bucket; the text says what is missing."""


def options(
    given: Mapping[str, str], endpoint: str = "", patience_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """Return how obstore opens a bucket with what a Secret, or an environment, gives.

    given: by the names of KNOWN; others are not looked at. endpoint: counts before AWS_ENDPOINT_URL; Amazon's
    own where neither says. Without an access key the machine's own role is asked for, as Amazon's tools do.
    Raises: Incomplete.
    """
    values = {name: given[name].strip() for name in KNOWN if given.get(name, "").strip()}
    missing = [name for name in (KEY_ID, KEY) if name not in values]
    if len(missing) == 1 or (missing and TOKEN in values):
        raise Incomplete(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    config = {
        "aws_region": next((values[name] for name in REGIONS if name in values), DEFAULT_REGION),
        "aws_access_key_id": values.get(KEY_ID),
        "aws_secret_access_key": values.get(KEY),
        "aws_session_token": values.get(TOKEN),
        "aws_endpoint_url": _endpoint(endpoint or values.get(ENDPOINT, "")),
    }
    client = {
        "allow_http": True,
        "timeout": dt.timedelta(seconds=min(REQUEST_SECONDS, patience_seconds)),
    }
    if CA in values:
        client["root_certificate"] = values[CA]
    return {
        "config": {name: value for name, value in config.items() if value},
        "client_options": client,
        "retry_config": {
            "retry_timeout": dt.timedelta(seconds=patience_seconds),
            "max_retries": 10 if patience_seconds >= PATIENCE_SECONDS else 4,
        },
    }


def _endpoint(url: str) -> str:
    """Check it here: of one that is no URL the library only says that it panicked."""
    if not url:
        return ""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urllib.parse.urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.query:
        raise Incomplete("the endpoint is no URL like https://s3.example.org:9000")
    return url.rstrip("/")


def texts(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return what a Secret's files give for `options`. Raises: Incomplete."""
    try:
        given = {name: value.decode() for name, value in files.items() if name in KNOWN}
    except UnicodeDecodeError:
        raise Incomplete("a key is not text") from None
    if KEY_ID not in given and KEY not in given:
        raise Incomplete(f"{KEY_ID} and {KEY} are missing")
    return given


def endpoint_of(opened: Mapping[str, Any]) -> str:
    """Where `options` leads, for messages."""
    return str(opened["config"].get("aws_endpoint_url") or f"S3 of {opened['config']['aws_region']}")


def sentence(said: str, bucket: str, endpoint: str, terms: Terms) -> str:
    """Return what an error's text means, with the next step, and nothing of what it quotes.

    said: the error of obstore: its first line, an XML document of the server's, the structure of the error.
    """
    code = _code(said)
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket} at {endpoint}; create it, or correct {terms.place}"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "TokenRefreshRequired"):
        return (
            f"{endpoint} does not accept the access key ({code}); correct {KEY_ID} and {KEY} in "
            f"{terms.secret}"
        )
    if code == "ExpiredToken":
        return (
            f"the session token for {endpoint} has expired; renew {TOKEN} in the Secret, or use a lasting key"
        )
    if not code and "403 Forbidden" in said:  # the answer to a HEAD request, which has no body
        return (
            f"{endpoint} denies access to bucket {bucket}; check the access key, and allow {terms.rights} "
            "to it"
        )
    if code in ("AccessDenied", "AllAccessDisabled", "AccountProblem"):
        return f"access to bucket {bucket} at {endpoint} is denied; allow {terms.rights} to the key"
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return f"bucket {bucket} is in another region; set AWS_REGION in the Secret"
    if code == "RequestTimeTooSkewed":
        return f"the clocks here and at {endpoint} differ too much; set the node's clock right"
    if code in ("XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"):
        return f"bucket {bucket} at {endpoint} is full; make room in it"
    return _of_the_connection(said, endpoint, terms) or (
        f"{endpoint} refuses: {code[:64] or _status(said) or 'its answer is not understood'}"
    )


def _of_the_connection(said: str, endpoint: str, terms: Terms) -> str:
    if "InvalidCertificate" in said or "UnknownIssuer" in said:
        kind = re.search(r"InvalidCertificate\(\s*(\w+)", said)
        return (
            f"the certificate of {endpoint} is not trusted ({kind[1] if kind else 'UnknownIssuer'}); put its "
            f"authority's certificate into the Secret as {CA}, or correct the endpoint's name"
        )
    if "dns error" in said:
        return f"the name of {endpoint} cannot be resolved; correct the endpoint, or give an IP address"
    if "InvalidContentType" in said or "InvalidMessage" in said:
        return f"{endpoint} does not speak TLS; write http://, if its network may be trusted"
    if "169.254." in said:
        return f"there are no credentials; put {KEY_ID} and {KEY} into {terms.secret}"
    if "error sending request" in said or "timed out" in said.lower() or "TimedOut" in said:
        return (
            f"{endpoint} does not answer; check the endpoint's address, and that the network lets it through"
        )
    return ""


def _code(said: str) -> str:
    """The server's own word for what is wrong."""
    found = re.search(r"<Code>\s*([A-Za-z]+)\s*</Code>|\bcode: \"?([A-Za-z]+)", said)
    return (found[1] or found[2]) if found else ""


def _status(said: str) -> str:
    found = re.search(r"status code: (\d{3} [A-Za-z ]+)", said)
    return found[1].strip() if found else ""

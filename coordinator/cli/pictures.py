"""What there is of one kind, now and after each change: what commands wait on.

This module refuses to know what is waited for.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from federation.kube import client, errors

Picture = dict[str, client.Object]
"""Objects by name."""


@contextlib.asynccontextmanager
async def following(
    api: client.Client, kind: str, namespace: str = "", *, labels: str = "", fields: str = ""
) -> AsyncIterator[AsyncIterator[Picture]]:
    """Give a stream of pictures of a kind in one namespace; its connection ends with the context.

    Each picture is whole; changes that come together may each have one.
    """
    async with contextlib.aclosing(_pictures(api, kind, namespace, labels, fields)) as stream:
        yield stream


async def _pictures(
    api: client.Client, kind: str, namespace: str, labels: str, fields: str
) -> AsyncGenerator[Picture, None]:
    while True:
        listing = await api.list(kind, namespace, labels=labels, fields=fields)
        present = {item["metadata"]["name"]: item for item in listing.items}
        yield dict(present)
        watch = api.watch(kind, listing.resource_version, namespace, labels=labels, fields=fields)
        with contextlib.suppress(errors.Gone):
            async with contextlib.aclosing(watch) as changes:
                async for change in changes:
                    name = change.object["metadata"]["name"]
                    if change.type == "DELETED":
                        present.pop(name, None)
                    else:
                        present[name] = change.object
                    yield dict(present)

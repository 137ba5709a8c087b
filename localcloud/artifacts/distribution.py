"""Speaks to a Docker registry by its HTTP API v2: which images and tags there are, what a manifest weighs; deletes and tags.

https://distribution.github.io/distribution/spec/api/
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

_INDEXES: Final = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS: Final = (*_INDEXES, "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_ACCEPT: Final = {"Accept": ", ".join(_MANIFESTS)}
_AT_ONCE: Final = 8


class RegistryDown(Exception):
    """The registry does not answer, or answers that it cannot; the message says which."""


@dataclass(frozen=True)
class Manifest:
    """What a digest stands for. `size_bytes` is its configuration and its layers, compressed; for an index, those of all its images."""

    digest: str
    media_type: str
    size_bytes: int
    built: datetime | None


class Distribution:
    """One registry, `localhost:5000`; every request has a time limit."""

    def __init__(self, registry: str) -> None:
        self._registry = registry
        limits = httpx.Limits(max_connections=_AT_ONCE)
        self._http = httpx.AsyncClient(base_url=f"http://{registry}", timeout=httpx.Timeout(10, connect=2), trust_env=False, limits=limits)

    async def images(self, prefix: str) -> list[str]:
        """The names of the images under a path, without the path."""
        names = [name async for name in self._pages("/v2/_catalog?n=1000", "repositories")]
        return [name.removeprefix(f"{prefix}/") for name in names if name.startswith(f"{prefix}/")]

    async def tags(self, name: str) -> dict[str, str]:
        """Tags and the digests they point to; none for an image that is not there."""
        names = [tag async for tag in self._pages(f"/v2/{name}/tags/list?n=1000", "tags")]
        digests = await asyncio.gather(*(self.digest(name, tag) for tag in names))
        return {tag: digest for tag, digest in zip(names, digests, strict=True) if digest}

    async def digest(self, name: str, reference: str) -> str:
        """The digest of a tag (or of a digest, if it is still there); empty if there is no such thing."""
        answer = await self._ask("HEAD", f"/v2/{name}/manifests/{reference}", headers=_ACCEPT)
        return "" if answer is None else answer.headers.get("Docker-Content-Digest", "")

    async def manifest(self, name: str, digest: str) -> Manifest | None:
        """What a digest stands for; None if it is not there."""
        answer = await self._ask("GET", f"/v2/{name}/manifests/{digest}", headers=_ACCEPT)
        if answer is None:
            return None
        body = _object(answer)
        media_type = str(body.get("mediaType") or answer.headers.get("Content-Type", ""))
        if media_type in _INDEXES:
            parts = await asyncio.gather(*(self.manifest(name, str(part["digest"])) for part in body.get("manifests", [])))
            return Manifest(digest, media_type, sum(part.size_bytes for part in parts if part), None)
        config = body.get("config", {})
        size = int(config.get("size", 0)) + sum(int(layer["size"]) for layer in body.get("layers", []))
        return Manifest(digest, media_type, size, await self._built(name, str(config.get("digest", ""))))

    async def delete(self, name: str, digest: str) -> None:
        """Delete a manifest, and with it every tag that points to it."""
        await self._ask("DELETE", f"/v2/{name}/manifests/{digest}")

    async def tag(self, name: str, digest: str, tag: str) -> None:
        """Have a tag point to a digest that is there."""
        found = await self._ask("GET", f"/v2/{name}/manifests/{digest}", headers=_ACCEPT)
        if found is not None:
            headers = {"Content-Type": found.headers["Content-Type"]}
            await self._ask("PUT", f"/v2/{name}/manifests/{tag}", headers=headers, content=found.content)

    async def untag(self, name: str, tag: str) -> None:
        """Remove a tag alone. This registry only deletes manifests: the tag moves to a manifest of its own, which goes."""
        config = secrets.token_hex(16).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        begun = await self._ask("POST", f"/v2/{name}/blobs/uploads/")
        if begun is None:
            return
        place = urlsplit(begun.headers["Location"])
        await self._ask("PUT", f"{place.path}?{place.query}&{urlencode({'digest': digest})}", content=config)
        layer = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest}
        body = json.dumps({"schemaVersion": 2, "mediaType": _MANIFESTS[-1], "config": layer, "layers": []}).encode()
        put = await self._ask("PUT", f"/v2/{name}/manifests/{tag}", headers={"Content-Type": _MANIFESTS[-1]}, content=body)
        if put is not None:
            await self.delete(name, put.headers["Docker-Content-Digest"])

    async def close(self) -> None:
        await self._http.aclose()

    async def _built(self, name: str, config_digest: str) -> datetime | None:
        answer = await self._ask("GET", f"/v2/{name}/blobs/{config_digest}") if config_digest else None
        try:
            return datetime.fromisoformat(_object(answer)["created"]) if answer is not None else None
        except (ValueError, KeyError, TypeError):
            return None  # not the configuration of an image, or one without a date

    async def _pages(self, path: str, key: str) -> AsyncIterator[str]:
        while path:
            answer = await self._ask("GET", path)
            if answer is None:
                return
            for name in _object(answer).get(key) or []:
                yield str(name)
            path = urljoin(path, answer.links["next"]["url"]) if "next" in answer.links else ""

    async def _ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, content: bytes | None = None
    ) -> httpx.Response | None:
        """The answer; None for 404."""
        try:
            answer = await self._http.request(method, path, headers=headers, content=content, follow_redirects=True)
        except httpx.HTTPError as error:
            raise RegistryDown(
                f"The registry at {self._registry} does not answer ({type(error).__name__}: {error}). Start it, or see its log."
            ) from error
        if answer.status_code == 404:
            return None
        if answer.is_error:
            raise RegistryDown(f"The registry at {self._registry} answered {answer.status_code} to {method} {path}. See its log.")
        return answer


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RegistryDown(f"{answer.request.url} answered no JSON object: is a Docker registry serving there?")
    return found

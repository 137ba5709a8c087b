"""The Docker Engine's own HTTP interface, as far as the set-up needs it: does it answer, which images, which containers."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from setup.trouble import Trouble

_DEFAULT = "unix:///var/run/docker.sock"
_TAR = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def address() -> str:
    """Where the Engine is looked for: DOCKER_HOST, else the usual socket; the same rule as the Python client's."""
    return os.environ.get("DOCKER_HOST") or _DEFAULT


def _connection(timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(address())
    if parts.scheme == "unix":
        return _UnixConnection(parts.path, timeout)
    if parts.scheme in ("tcp", "http"):
        return http.client.HTTPConnection(parts.hostname or "localhost", parts.port or 2375, timeout=timeout)
    raise Trouble(f"DOCKER_HOST={address()}: only unix:// and tcp:// are understood here.", remedy="Unset DOCKER_HOST, or give a socket.")


def _request(method: str, path: str, *, tar: BinaryIO | None = None, timeout: float = 20) -> str:
    """One request; the whole answer as text. Trouble for a refusal, OSError when nobody answers."""
    with contextlib.closing(_connection(timeout)) as connection:
        connection.request(method, path, body=tar, headers=_TAR if tar else {}, encode_chunked=tar is not None)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    if answer.status >= 400:
        raise Trouble(f"the Docker Engine refused {method} {path.partition('?')[0]}: {_message(text)}")
    return text


def _message(text: str) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:300]


def silence() -> str:
    """Why the Engine does not answer; empty when it does."""
    try:
        _request("GET", "/_ping", timeout=5)
    except PermissionError:
        return f"{address()}: this user may not use it"
    except (OSError, http.client.HTTPException, Trouble) as error:
        return f"{address()}: {error}"
    return ""


def has_image(name: str) -> bool:
    """Whether the Engine holds this image."""
    found = json.loads(_request("GET", "/images/json?" + urlencode({"filters": json.dumps({"reference": [name]})})))
    return bool(found)


def pull(image: str, tag: str, timeout: float) -> None:
    """Fetch an image from its public registry."""
    _progress(_request("POST", "/images/create?" + urlencode({"fromImage": image, "tag": tag, "platform": "linux/amd64"}), timeout=timeout))


def build(context: BinaryIO, dockerfile: str, name: str, timeout: float) -> str:
    """Build an image from a tar of its context; gives the log back."""
    query = urlencode({"dockerfile": dockerfile, "t": name, "platform": "linux/amd64", "rm": "1", "forcerm": "1"})
    return _progress(_request("POST", f"/build?{query}", tar=context, timeout=timeout))


def load_root(tree: BinaryIO, name: str, changes: list[str], timeout: float) -> None:
    """Make an image of a tar of a whole file system."""
    repo, _, tag = name.rpartition(":")
    asked = {"fromSrc": "-", "repo": repo, "tag": tag, "platform": "linux/amd64", "changes": changes}
    query = urlencode(asked, doseq=True)
    _progress(_request("POST", f"/images/create?{query}", tar=tree, timeout=timeout))


def _progress(text: str) -> str:
    """The Engine answers 200 and reports a failure as the last line of its progress."""
    shown = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            event: dict[str, Any] = json.loads(line)
            if "error" in event:
                raise Trouble(f"the Docker Engine says: {event['error']}")
            shown.append(str(event.get("stream") or event.get("status") or "").rstrip())
    return "\n".join(line for line in shown if line)


def remove_containers(label: str) -> int:
    """Remove every container with this label, running or not; how many there were."""
    count = 0
    for container in _containers(label):
        with contextlib.suppress(Trouble):  # gone meanwhile
            _request("DELETE", f"/containers/{quote(container)}?force=1&v=1", timeout=60)
            count += 1
    return count


def remove_images(label: str) -> int:
    """Remove every image with this label that nothing else uses; how many went."""
    found = json.loads(_request("GET", "/images/json?" + urlencode({"filters": json.dumps({"label": [label]})})))
    count = 0
    for image in found:
        with contextlib.suppress(Trouble):  # still in use
            _request("DELETE", f"/images/{quote(image['Id'])}?force=1", timeout=60)
            count += 1
    return count


def _containers(label: str) -> Iterator[str]:
    filters = json.dumps({"label": [label]})
    yield from (str(one["Id"]) for one in json.loads(_request("GET", "/containers/json?" + urlencode({"all": "1", "filters": filters}))))


def remove_tags(registry: str) -> int:
    """Remove the names that images have in one registry; how many. An image without another name goes with its last one."""
    found = json.loads(_request("GET", "/images/json?" + urlencode({"filters": json.dumps({"reference": [f"{registry}/*/*/*"]})})))
    names = [name for image in found for name in image.get("RepoTags") or () if name.startswith(f"{registry}/")]
    for name in names:
        with contextlib.suppress(OSError, Trouble):
            _request("DELETE", f"/images/{quote(name)}", timeout=60)
    return len(names)

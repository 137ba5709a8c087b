"""The rules for labels and annotations (service.proto; https://cloud.google.com/run/docs/configuring/labels, Kubernetes' annotations)."""

import re
from collections.abc import Mapping

from localcloud.run.violations import Malformed, invalid

_SYSTEM = ("run.googleapis.com", "cloud.googleapis.com", "serving.knative.dev", "autoscaling.knative.dev")
_LABEL_KEY = re.compile(r"[^\W\dA-Z_](-|[^\WA-Z]){0,62}")
_LABEL_VALUE = re.compile(r"(-|[^\WA-Z]){0,63}")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_MOST_LABELS = 64
_MOST_BYTES = 256 * 1024


def labels(pairs: Mapping[str, str], field: str) -> None:
    """At most 64, in lower case letters (of any language), digits, `_` and `-`."""
    for key, value in pairs.items():
        _not_reserved(key, field)
        if not _LABEL_KEY.fullmatch(key) or key != key.lower():
            text = f"the key '{key[:80]}' must have 1-63 lower case letters, digits, _ or -, and begin with a letter."
            raise Malformed(field, text)  # [approximated]
        if not _LABEL_VALUE.fullmatch(value) or value != value.lower():
            raise Malformed(field, f"the value of '{key}' must have at most 63 lower case letters, digits, _ or -.")  # [approximated]
    if len(pairs) > _MOST_LABELS:
        raise Malformed(field, f"{len(pairs)} labels; at most {_MOST_LABELS} are allowed.")  # [approximated]


def annotations(pairs: Mapping[str, str], field: str) -> None:
    """Kubernetes' form of keys, and its total size."""
    for key in pairs:
        _not_reserved(key, field)
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and (not _PREFIX.fullmatch(prefix) or len(prefix) > 253)):
            text = f"the key '{key[:80]}' must be NAME or DOMAIN/NAME; a name has 1-63 letters, digits, -, _ or dots."
            raise Malformed(field, text)  # [approximated]
    if sum(len(key.encode()) + len(value.encode()) for key, value in pairs.items()) > _MOST_BYTES:
        raise Malformed(field, "the total size is over 256 kB.")  # [approximated]


def _not_reserved(key: str, field: str) -> None:
    """The real one refuses them "in new resources", since resources of v1 have them; none of v1 exist here, so all are refused."""
    namespace = key.split("/", 1)[0] if "/" in key else ""
    if any(namespace == system or namespace.endswith("." + system) for system in _SYSTEM):
        raise invalid(f"{field}: the key '{key}' is in a reserved namespace; use the corresponding field of the v2 API.")  # [approximated]

"""Identity tokens of callers: the local cloud issues and verifies them itself, as Google's token service does for the real one.

https://cloud.google.com/run/docs/authenticating/service-to-service; RFC 7519 with HS256, where Google signs with RS256 [approximated].
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
from dataclasses import dataclass
from typing import Any

from localcloud import clock

_SCHEMA = "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, secret BLOB NOT NULL)"
_ISSUER = "https://accounts.google.com"
_REMOVED = "SIGNATURE_REMOVED_BY_GOOGLE"


@dataclass(frozen=True)
class Caller:
    """Who a verified token speaks for, and which service it was made for."""

    email: str
    audience: str


class Identity:
    """Signs with a key that is kept in the state, so that tokens outlive a restart."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO keys (name, secret) VALUES ('identity', ?)", (os.urandom(32),))
        self._key: bytes = connection.execute("SELECT secret FROM keys WHERE name = 'identity'").fetchone()[0]

    def issue(self, email: str, audience: str, seconds: float = 3600) -> str:
        """A token that says: the bearer is `email`, and calls `audience`."""
        now = int(clock.now().timestamp())
        subject = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8], "big"))
        claims = {
            "aud": audience, "azp": subject, "email": email, "email_verified": True, "exp": now + int(seconds), "iat": now, "iss": _ISSUER,
            "sub": subject,
        }  # fmt: skip
        signed = f"{_encoded({'alg': 'HS256', 'kid': 'local', 'typ': 'JWT'})}.{_encoded(claims)}"
        return f"{signed}.{self._signature(signed)}"

    def caller(self, token: str) -> Caller | None:
        """Who a token speaks for; None if it is not one of ours, or has expired."""
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(signed).encode(), signature.encode("utf-8", "replace")):
            return None
        claims = json.loads(_decoded(signed.partition(".")[2]))  # ours: it bears our signature
        if claims["exp"] <= clock.now().timestamp():
            return None
        return Caller(claims["email"].lower(), claims["aud"])

    def _signature(self, signed: str) -> str:
        return _base64(hmac.digest(self._key, signed.encode("utf-8", "replace"), "sha256"))


def redacted(token: str) -> str:
    """The token as an instance gets it: nobody can call on with it."""
    return f"{token.rpartition('.')[0]}.{_REMOVED}"


def _encoded(part: dict[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

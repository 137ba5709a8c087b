"""The secrets and their versions, in tables of the state's file; payloads leave it by `payload` and `access` alone."""

import re
from collections.abc import Callable
from typing import Any

from google.cloud import secretmanager_v1

from localcloud import clock
from localcloud.naming import project_number
from localcloud.state import State
from localcloud.wire import Code, Refusal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, body BLOB NOT NULL, made INTEGER NOT NULL DEFAULT 0,
    policy BLOB NOT NULL DEFAULT x'');
CREATE TABLE IF NOT EXISTS secret_versions (secret TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL, payload BLOB,
    PRIMARY KEY (secret, number));
"""
_SECRET = re.compile(r"projects/([^/\s]+)/secrets/([^/\s]+)")
_VERSION = re.compile(r"(projects/[^/\s]+/secrets/[^/\s]+)/versions/([^/\s]+)")
ACCESS = "secretmanager.versions.access"
VersionState: Any = secretmanager_v1.SecretVersion.State  # proto-plus enumerations are integers to type checkers


class SecretStore:
    """Secrets by their names with the project's number, `projects/NUMBER/secrets/NAME`; used on the event loop's thread only."""

    def __init__(self, state: State) -> None:
        self._state, self._db = state, state.connection
        self.permits: Callable[[str, str, str], bool] = lambda *_: True  # whether an account has a permission on a resource
        self._db.executescript(_SCHEMA)

    # secrets

    def secret(self, name: str) -> secretmanager_v1.Secret | None:
        """Give one secret; one whose time is over is gone."""
        row = self._db.execute("SELECT body FROM secrets WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        found: secretmanager_v1.Secret = secretmanager_v1.Secret.deserialize(row[0])
        if "expire_time" in found and found.expire_time <= clock.now():
            self.delete(name)
            return None
        return found

    def secrets(self, project: str) -> list[secretmanager_v1.Secret]:
        """Give the secrets of a project, newest first."""
        prefix = f"{project}/secrets/"
        names = self._db.execute("SELECT name FROM secrets WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix)).fetchall()
        found = [secret for (name,) in names if (secret := self.secret(name)) is not None]
        return sorted(found, key=lambda secret: secret.create_time, reverse=True)

    def put(self, secret: secretmanager_v1.Secret) -> None:
        """Write one secret."""
        body = secretmanager_v1.Secret.serialize(secret)
        text = "INSERT INTO secrets (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"
        with self._state.transaction():
            self._db.execute(text, (secret.name, body))

    def delete(self, name: str) -> None:
        """Forget a secret and all its versions."""
        with self._state.transaction():
            self._db.execute("DELETE FROM secret_versions WHERE secret = ?", (name,))
            self._db.execute("DELETE FROM secrets WHERE name = ?", (name,))

    def policy(self, name: str) -> bytes:
        """Give a secret's access policy."""
        row = self._db.execute("SELECT policy FROM secrets WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else b""

    def put_policy(self, name: str, policy: bytes) -> None:
        """Write a secret's access policy."""
        with self._state.transaction():
            self._db.execute("UPDATE secrets SET policy = ? WHERE name = ?", (policy, name))

    # versions

    def add(self, secret: str, payload: bytes, version: secretmanager_v1.SecretVersion) -> None:
        """Write a new version, and name it by the next number of its secret; numbers are never used again."""
        with self._state.transaction():
            (number,) = self._db.execute("UPDATE secrets SET made = made + 1 WHERE name = ? RETURNING made", (secret,)).fetchone()
            version.name = f"{secret}/versions/{number}"
            row = (secret, number, secretmanager_v1.SecretVersion.serialize(version), payload)
            self._db.execute("INSERT INTO secret_versions (secret, number, body, payload) VALUES (?, ?, ?, ?)", row)

    def change(self, version: secretmanager_v1.SecretVersion) -> None:
        """Write a version that is there; of a destroyed one the payload goes."""
        secret, _, number = version.name.rpartition("/versions/")
        body = secretmanager_v1.SecretVersion.serialize(version)
        with self._state.transaction():
            self._db.execute("UPDATE secret_versions SET body = ? WHERE secret = ? AND number = ?", (body, secret, int(number)))
            if version.state == VersionState.DESTROYED:
                self._db.execute("UPDATE secret_versions SET payload = NULL WHERE secret = ? AND number = ?", (secret, int(number)))

    def versions(self, secret: str) -> list[secretmanager_v1.SecretVersion]:
        """Give the versions of a secret, newest first."""
        rows = self._db.execute("SELECT body FROM secret_versions WHERE secret = ? ORDER BY number DESC", (secret,))
        return [secretmanager_v1.SecretVersion.deserialize(body) for (body,) in rows]

    def version(self, name: str, *, by_alias: bool = True) -> secretmanager_v1.SecretVersion:
        """Give the version of a full name: a number, or (`by_alias`) an alias, `latest` among them; a Refusal if there is none."""
        secret, wanted = split(name)
        found = self.secret(secret)
        newest = self._newest(secret) if found else None
        if found is None or newest is None:
            raise Refusal(Code.NOT_FOUND, f"Secret [{secret}] not found or has no versions.")
        if by_alias and wanted == "latest":
            wanted = str(newest)
        elif by_alias:
            wanted = str(found.version_aliases.get(wanted, wanted))
        number = int(wanted) if re.fullmatch("[0-9]{1,18}", wanted) else 0
        row = self._db.execute("SELECT body FROM secret_versions WHERE secret = ? AND number = ?", (secret, number)).fetchone()
        if row is None:
            raise Refusal(Code.NOT_FOUND, f"Secret Version [{secret}/versions/{wanted}] not found.")
        version: secretmanager_v1.SecretVersion = secretmanager_v1.SecretVersion.deserialize(row[0])
        return version

    def _newest(self, secret: str) -> int | None:
        """The number of the newest version, whatever its state."""
        row: tuple[int | None] = self._db.execute("SELECT max(number) FROM secret_versions WHERE secret = ?", (secret,)).fetchone()
        return row[0]

    # payloads

    def payload(self, version: secretmanager_v1.SecretVersion) -> bytes:
        """Give the payload of an enabled version; a Refusal if it is in another state."""
        if version.state != VersionState.ENABLED:
            raise Refusal(Code.FAILED_PRECONDITION, f"Secret Version [{version.name}] is in {VersionState(version.state).name} state.")
        secret, _, number = version.name.rpartition("/versions/")
        row = self._db.execute("SELECT payload FROM secret_versions WHERE secret = ? AND number = ?", (secret, int(number))).fetchone()
        return bytes(row[0])

    def access(self, secret: str, project: str, version: str, account: str) -> bytes:
        """Give the payload that a container's reference means: a secret's name in a project, or its full name; a Refusal says why not."""
        full = secret if "/" in secret else f"projects/{project}/secrets/{secret}"
        name = f"{full}/versions/{version}"
        if not self.permits(account, ACCESS, name):
            raise Refusal(Code.PERMISSION_DENIED, f"Permission '{ACCESS}' denied for resource '{name}' (or it may not exist).")
        return self.payload(self.version(name))


def secret_name(given: str) -> str:
    """A secret's name as it is kept: the project by its number."""
    found = _SECRET.fullmatch(given)
    if not found:
        raise bad_name(given)
    return f"projects/{project_number(found[1])}/secrets/{found[2]}"


def split(given: str) -> tuple[str, str]:
    """The secret's name, as it is kept, and the version of a version's full name."""
    found = _VERSION.fullmatch(given)
    if not found:
        raise bad_name(given)
    return secret_name(found[1]), found[2]


def bad_name(given: str) -> Refusal:
    """[real text: googleapis/nodejs-secret-manager#74]"""
    return Refusal(Code.INVALID_ARGUMENT, f"Resource ID [{given}] is not in a valid format.")


def secret_missing(name: str) -> Refusal:
    """[real text]"""
    return Refusal(Code.NOT_FOUND, f"Secret [{name}] not found.")

"""Secret Manager v1 over a secret store (google/cloud/secretmanager/v1/service.proto, resources.proto)."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from google.cloud import secretmanager_v1
from google.protobuf import empty_pb2

from localcloud import clock
from localcloud.naming import project_number, short
from localcloud.pages import page
from localcloud.run import iam
from localcloud.secrets import secretstore
from localcloud.secrets.secretstore import SecretStore, VersionState
from localcloud.wire import Code, Context, Refusal

_Empty: Any = empty_pb2.Empty  # type: ignore[attr-defined]  # generated modules have no types
_LARGEST = 64 * 1024
_PROJECT = re.compile(r"projects/([^/\s]+)")
_FARTHEST_NS = 100 * 366 * 24 * 3600 * 10**9  # [approximated]
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_ANNOTATION = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?")
_CHANGED_BY_UPDATE = frozenset({"labels", "annotations", "version_aliases", "expire_time", "ttl", "topics", "rotation"})
_NOT_HERE = ("version_destroy_ttl", "customer_managed_encryption")


class Secrets:
    """google.cloud.secretmanager.v1.SecretManagerService; RotateSecret and EnableManagedRotation are not served."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store

    # secrets

    async def CreateSecret(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto CreateSecret] Without versions."""
        project = _project(request.parent)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", request.secret_id):  # the text is the real one, though hyphens are allowed
            text = f"The provided Secret ID [{request.secret_id}] does not match the expected format [[a-zA-Z_0-9]+]"
            raise Refusal(Code.INVALID_ARGUMENT, text)
        secret = request.secret
        if "replication" not in secret or not ("automatic" in secret.replication or "user_managed" in secret.replication):
            raise _required("secret.replication")
        name = f"{project}/secrets/{request.secret_id}"
        if self._store.secret(name) is not None:
            raise Refusal(Code.ALREADY_EXISTS, f"Secret [{name}] already exists.")
        _check(secret, versions=set())
        secret.name, secret.create_time = name, clock.now()
        return self._written(secret)

    async def GetSecret(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto GetSecret]"""
        return self._secret(request.name)

    async def ListSecrets(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto ListSecrets] Newest first; a filter knows name and labels."""
        found = _filtered(self._store.secrets(_project(request.parent)), request.filter, _secret_term)
        chosen, token = page(found, request.page_size, request.page_token)
        return secretmanager_v1.ListSecretsResponse(secrets=chosen, next_page_token=token, total_size=len(found))

    async def UpdateSecret(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto UpdateSecret] Of the fields of the mask, maps as wholes."""
        secret, wanted = self._secret(request.secret.name), request.secret
        paths = list(request.update_mask.paths)
        if not paths:
            raise _required("update_mask")
        if wrong := [path for path in paths if path not in _CHANGED_BY_UPDATE]:
            raise Refusal(Code.INVALID_ARGUMENT, f"Field [update_mask] has an invalid path [{wrong[0]}].")  # [approximated]
        _check_etag(wanted.etag, secret.etag, secret.name)
        for path in paths:
            setattr(secret, path, getattr(wanted, path) if path in wanted else None)
        _check(secret, versions={int(short(each.name)) for each in self._store.versions(secret.name)})
        return self._written(secret)

    async def DeleteSecret(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto DeleteSecret] With all its versions."""
        secret = self._secret(request.name)
        _check_etag(request.etag, secret.etag, secret.name)
        self._store.delete(secret.name)
        return _Empty()

    # versions

    async def AddSecretVersion(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto AddSecretVersion]"""
        secret = self._secret(request.parent)
        if "payload" not in request:
            raise _required("payload")
        data, given = request.payload.data, "data_crc32c" in request.payload
        if not data:
            raise Refusal(Code.INVALID_ARGUMENT, "Secret Payload cannot be empty.")
        if len(data) > _LARGEST:  # [approximated: the limit is the real one]
            raise Refusal(Code.INVALID_ARGUMENT, f"Secret Payload exceeds the maximum size of {_LARGEST} bytes: it has {len(data)} bytes.")
        if given and request.payload.data_crc32c != crc32c(data):  # [approximated]
            raise Refusal(Code.INVALID_ARGUMENT, "The provided CRC32C checksum does not match the payload.")
        version = secretmanager_v1.SecretVersion(
            create_time=clock.now(),
            state=VersionState.ENABLED,
            etag=_new_etag(),
            client_specified_payload_checksum=given,
            replication_status=_replicated(secret.replication),
        )
        self._store.add(secret.name, data, version)
        return version

    async def GetSecretVersion(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto GetSecretVersion]"""
        return self._store.version(request.name)

    async def ListSecretVersions(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto ListSecretVersions] Newest first; a filter knows the state."""
        found = _filtered(self._store.versions(self._secret(request.parent).name), request.filter, _version_term)
        chosen, token = page(found, request.page_size, request.page_token)
        return secretmanager_v1.ListSecretVersionsResponse(versions=chosen, next_page_token=token, total_size=len(found))

    async def AccessSecretVersion(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto AccessSecretVersion] The name in the answer is that of the version which `latest` or an alias meant."""
        version = self._store.version(request.name)
        data = self._store.payload(version)
        payload = secretmanager_v1.SecretPayload(data=data, data_crc32c=crc32c(data))
        return secretmanager_v1.AccessSecretVersionResponse(name=version.name, payload=payload)

    async def EnableSecretVersion(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto EnableSecretVersion]"""
        return self._to(request, VersionState.ENABLED)

    async def DisableSecretVersion(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto DisableSecretVersion]"""
        return self._to(request, VersionState.DISABLED)

    async def DestroySecretVersion(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[service.proto DestroySecretVersion] The payload is forgotten."""
        return self._to(request, VersionState.DESTROYED)

    # policies

    async def GetIamPolicy(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[iam_policy.proto GetIamPolicy]"""
        return iam.read(self._store.policy(self._secret(request.resource).name))

    async def SetIamPolicy(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[iam_policy.proto SetIamPolicy] Kept, but nobody is refused because of it."""
        name = self._secret(request.resource).name
        policy = iam.changed(self._store.policy(name), request)
        self._store.put_policy(name, policy.SerializeToString())
        return policy

    async def TestIamPermissions(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[iam_policy.proto TestIamPermissions]"""
        self._secret(request.resource)
        return iam.permissions(request)

    def _secret(self, given: str) -> secretmanager_v1.Secret:
        name = secretstore.secret_name(given)
        found = self._store.secret(name)
        if found is None:
            raise secretstore.secret_missing(name)
        return found

    def _written(self, secret: secretmanager_v1.Secret) -> secretmanager_v1.Secret:
        """Keep a secret; a `ttl` is input only: what is told is when its time is over."""
        kept = secretmanager_v1.Secret.pb(secret)
        if kept.HasField("ttl"):
            kept.expire_time.FromNanoseconds(clock.time_ns() + kept.ttl.ToNanoseconds())
        secret.etag = _new_etag()
        self._store.put(secret)
        return secret

    def _to(self, request: Any, state: Any) -> secretmanager_v1.SecretVersion:
        version = self._store.version(request.name, by_alias=False)
        _check_etag(request.etag, version.etag, version.name)
        if version.state == VersionState.DESTROYED:
            raise Refusal(Code.FAILED_PRECONDITION, f"Secret Version [{version.name}] is in DESTROYED state.")
        version.state, version.etag = state, _new_etag()
        if state == VersionState.DESTROYED:
            version.destroy_time = clock.now()
        self._store.change(version)
        return version


def _project(parent: str) -> str:
    found = _PROJECT.fullmatch(parent)
    if not found:
        raise secretstore.bad_name(parent)
    return f"projects/{project_number(found[1])}"


def _required(field: str) -> Refusal:
    """[real text, for payload: hashicorp/terraform-provider-google#8766]"""
    return Refusal(Code.INVALID_ARGUMENT, f"Field [{field}] is required.")


def _new_etag() -> str:
    """An etag in the real shape: microseconds in hexadecimal digits, quoted."""
    return f'"{clock.time_ns() // 1000:x}"'


def _check_etag(given: str, current: str, name: str) -> None:
    if given and given != current:  # [approximated: the code is the real one, the text is ours]
        raise Refusal(Code.FAILED_PRECONDITION, f"The etag [{given}] of [{name}] is not its current etag: read it again.")


def _check(secret: secretmanager_v1.Secret, versions: set[int]) -> None:
    """Refuse what a secret cannot have [rules: resources.proto; texts approximated]."""
    for field in _NOT_HERE:
        if field in secret:
            raise Refusal(Code.UNIMPLEMENTED, f"The local cloud does not serve secrets with {field}.")
    bad = [key for key, value in secret.labels.items() if not (key[:1].isalpha() and _of_label(key) and _of_label(value))]
    if bad or len(secret.labels) > 64:
        which = f": [{bad[0]}]" if bad else ", there are more than 64"
        raise Refusal(Code.INVALID_ARGUMENT, f"Field [secret.labels] is invalid{which}.")
    kept = secretmanager_v1.Secret.pb(secret)
    for field, now in (("expire_time", clock.time_ns()), ("ttl", 0)):
        if kept.HasField(field) and not _later(getattr(kept, field), now):  # [approximated: the text, the bound]
            raise Refusal(Code.INVALID_ARGUMENT, f"Field [secret.{field}] is invalid: it must be later than now, and within 100 years.")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in secret.annotations.items())
    if size >= 16 * 1024 or not all(_ANNOTATION.fullmatch(key) for key in secret.annotations):
        raise Refusal(Code.INVALID_ARGUMENT, "Field [secret.annotations] is invalid.")
    if len(secret.version_aliases) > 50:
        raise Refusal(Code.INVALID_ARGUMENT, "Field [secret.version_aliases] is invalid, there are more than 50.")
    for alias, number in secret.version_aliases.items():
        if not _ALIAS.fullmatch(alias) or alias in {"latest", "NEW"}:
            raise Refusal(Code.INVALID_ARGUMENT, f"Field [secret.version_aliases] is invalid: [{alias}] cannot be an alias.")
        if number not in versions:
            text = f"Field [secret.version_aliases] is invalid: [{alias}] means version {number}, which does not exist."
            raise Refusal(Code.INVALID_ARGUMENT, text)


def _later(given: Any, now: int) -> bool:
    nanos: int = given.seconds * 10**9 + given.nanos
    return 0 <= int(given.nanos) < 10**9 and now < nanos < now + _FARTHEST_NS


def _of_label(text: str) -> bool:
    return len(text) <= 63 and all((char.isalnum() and not char.isupper()) or char in "_-" for char in text)


def _replicated(replication: secretmanager_v1.Replication) -> secretmanager_v1.ReplicationStatus:
    if "user_managed" in replication:
        replicas = [{"location": each.location} for each in replication.user_managed.replicas]
        return secretmanager_v1.ReplicationStatus(user_managed={"replicas": replicas})
    return secretmanager_v1.ReplicationStatus(automatic={})


_TERM = re.compile(r"([A-Za-z_.-]+)\s*([=:])\s*(\"[^\"]*\"|[^\s\"]+)")


def _filtered(found: list[Any], text: str, holds: Callable[[Any, str, str, str], bool | None]) -> list[Any]:
    """What a filter lets through: terms that must all hold, joined by AND or nothing [approximated: no OR, NOT, parentheses]."""
    rest = re.sub(r"\bAND\b", " ", text)
    terms: Iterable[tuple[str, str, str]] = _TERM.findall(rest)
    if _TERM.sub("", rest).strip():
        message = f"The local cloud cannot read the filter {text[:200]!r}: use FIELD=VALUE or FIELD:VALUE, joined by AND."
        raise Refusal(Code.INVALID_ARGUMENT, message)
    for field, operator, value in terms:
        decided = [(each, holds(each, field, operator, value.strip('"'))) for each in found]
        if any(verdict is None for _, verdict in decided):
            raise Refusal(Code.INVALID_ARGUMENT, f"The local cloud cannot filter by [{field}].")
        found = [each for each, verdict in decided if verdict]
    return found


def _secret_term(secret: secretmanager_v1.Secret, field: str, operator: str, value: str) -> bool | None:
    if field == "name":
        return value.lower() in secret.name.lower() if operator == ":" else value in (secret.name, short(secret.name))
    if field.startswith("labels."):
        label = secret.labels.get(field.removeprefix("labels."))
        return label is not None and (value in ("*", label) if operator == ":" else value == label)
    return None


def _version_term(version: secretmanager_v1.SecretVersion, field: str, _: str, value: str) -> bool | None:
    return VersionState(version.state).name == value.upper() if field == "state" else None


def _table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(entry(value) for value in range(256))


_CRC32C = _table()


def crc32c(data: bytes) -> int:
    """The checksum that clients verify payloads by (CRC-32C, Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF

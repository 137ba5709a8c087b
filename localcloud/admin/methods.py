"""The methods of the APIs: the permission that each of them needs, and the resource that a request names.

https://cloud.google.com/run/docs/reference/iam/permissions and the permission pages of the other APIs.
"""

from typing import Any

from localcloud.wire import Call


def _of(service: str, prefix: str, permissions: dict[str, str]) -> dict[str, str]:
    return {f"{service}/{rpc}": f"{prefix}.{each}" for rpc, each in permissions.items()}


PERMISSIONS: dict[str, str] = {
    **_of("Services", "run.services", {
        "CreateService": "create", "UpdateService": "update", "GetService": "get", "ListServices": "list", "DeleteService": "delete",
        "GetIamPolicy": "getIamPolicy", "SetIamPolicy": "setIamPolicy",
    }),
    "Services/TestIamPermissions": "",  # everybody may ask what he may do
    **_of("Revisions", "run.revisions", {"GetRevision": "get", "ListRevisions": "list", "DeleteRevision": "delete"}),
    **_of("Operations", "run.operations", {
        "GetOperation": "get", "WaitOperation": "get", "ListOperations": "list", "DeleteOperation": "delete", "CancelOperation": "cancel",
    }),
    **_of("ArtifactRegistry", "artifactregistry", {
        "CreateRepository": "repositories.create", "GetRepository": "repositories.get", "ListRepositories": "repositories.list",
        "UpdateRepository": "repositories.update", "DeleteRepository": "repositories.delete",
        "GetDockerImage": "dockerimages.get", "ListDockerImages": "dockerimages.list",
        "GetPackage": "packages.get", "ListPackages": "packages.list", "DeletePackage": "packages.delete",
        "GetVersion": "versions.get", "ListVersions": "versions.list", "DeleteVersion": "versions.delete",
        "BatchDeleteVersions": "versions.delete",
        "GetTag": "tags.get", "ListTags": "tags.list", "CreateTag": "tags.create", "UpdateTag": "tags.update", "DeleteTag": "tags.delete",
        "GetIamPolicy": "repositories.getIamPolicy", "SetIamPolicy": "repositories.setIamPolicy",
    }),
    "ArtifactRegistry/TestIamPermissions": "",
    **_of("LoggingServiceV2", "logging", {
        "ListLogEntries": "logEntries.list", "TailLogEntries": "logEntries.list", "WriteLogEntries": "logEntries.create",
        "ListLogs": "logs.list", "DeleteLog": "logs.delete",
    }),
    **_of("MetricService", "monitoring", {
        "ListTimeSeries": "timeSeries.list", "CreateTimeSeries": "timeSeries.create",
        "ListMetricDescriptors": "metricDescriptors.list", "GetMetricDescriptor": "metricDescriptors.get",
        "ListMonitoredResourceDescriptors": "monitoredResourceDescriptors.list",
        "GetMonitoredResourceDescriptor": "monitoredResourceDescriptors.get",
    }),
    **_of("SecretManagerService", "secretmanager", {
        "CreateSecret": "secrets.create", "GetSecret": "secrets.get", "ListSecrets": "secrets.list", "UpdateSecret": "secrets.update",
        "DeleteSecret": "secrets.delete", "AddSecretVersion": "versions.add", "GetSecretVersion": "versions.get",
        "ListSecretVersions": "versions.list", "AccessSecretVersion": "versions.access", "EnableSecretVersion": "versions.enable",
        "DisableSecretVersion": "versions.disable", "DestroySecretVersion": "versions.destroy",
        "GetIamPolicy": "secrets.getIamPolicy", "SetIamPolicy": "secrets.setIamPolicy",
    }),
    "SecretManagerService/TestIamPermissions": "",
}  # fmt: skip
"""Every method that is served, and its permission; "" where none is needed."""

_CREATED = {
    "CreateService": ("services", "service_id"),
    "CreateRepository": ("repositories", "repository_id"),
    "CreateSecret": ("secrets", "secret_id"),
}


def resource(call: Call) -> str:
    """The full name of what a call is about: a service, a parent whose children are listed; "" where a stream names it later."""
    return resources(call)[0]


def resources(call: Call) -> tuple[str, ...]:
    """All that a call is about, at least one: calls of Logging may name several projects and logs."""
    request = call.request
    if call.rpc in _CREATED:
        collection, id_field = _CREATED[call.rpc]
        return (f"{_text(request, 'parent')}/{collection}/{_text(request, id_field)}",)
    if call.rpc == "UpdateService":
        return (str(request.service.name),)
    if call.rpc == "ListLogEntries":
        return tuple(request.resource_names) or ("",)
    if call.rpc == "WriteLogEntries":
        return tuple(dict.fromkeys(each.log_name or request.log_name for each in request.entries)) or (request.log_name,)
    return (next((found for each in ("name", "resource", "parent", "log_name") if (found := _text(request, each))), ""),)


def _text(request: Any, field: str) -> str:
    value = getattr(request, field, "")
    return value if isinstance(value, str) else ""

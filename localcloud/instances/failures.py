"""Why a revision does not start, in the words of the real service (collected from public issue reports unless marked)."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from google.cloud import run_v2

from localcloud.naming import project_number
from localcloud.wire import Code, Refusal

Reason = int  # a member of one of the two (proto-plus enumerations are integers to type checkers)
Common: Any = run_v2.Condition.CommonReason
OfRevision: Any = run_v2.Condition.RevisionReason


@dataclass(frozen=True)
class Failure(Exception):
    """A revision that cannot serve: the message of its operation and conditions, the condition's reason, and what is put in the log."""

    message: str
    reason: Reason
    containers_fault: bool = True  # the container was tried (else: it could not even be made)


def _not_ready(revision: str, text: str) -> str:
    return f"Revision '{revision}' is not ready and cannot serve traffic. {text}"


def start(project: str, service: str, revision: str, port: int) -> Failure:
    """The container ended, or nothing listened in time: what the start-up probe that nobody asked for found out."""
    text = (
        f"The user-provided container failed to start and listen on the port defined provided by the PORT={port} environment variable "
        "within the allocated timeout. This can happen when the container port is misconfigured or if the timeout is too short. "
        "The health check timeout can be extended."
    )
    return _unhealthy(project, service, revision, text)


def probe_checks(project: str, service: str, revision: str) -> Failure:
    """A start-up probe that was asked for found no answer, or the container ended before it did."""
    return _unhealthy(project, service, revision, "The user-provided container failed the configured startup probe checks.")


def _unhealthy(project: str, service: str, revision: str, text: str) -> Failure:
    query = quote(
        f'resource.type="cloud_run_revision"\nresource.labels.service_name="{service}"\nresource.labels.revision_name="{revision}"', safe=""
    )
    text = (
        f"{text} Logs for this revision might contain more information.\n\n"
        f"Logs URL: https://console.cloud.google.com/logs/viewer?project={project}&resource=cloud_run_revision/service_name/{service}"
        f"/revision_name/{revision}&advancedFilter={query}\n"
        "For more troubleshooting guidance, see https://cloud.google.com/run/docs/troubleshooting#container-failed-to-start"
    )
    return Failure(_not_ready(revision, text), OfRevision.HEALTH_CHECK_CONTAINER_ERROR)


def image_missing(revision: str, image: str) -> Failure:
    """The registry does not have the image."""
    return Failure(_not_ready(revision, f"Image '{image}' not found."), Common.CONTAINER_MISSING, False)


def image_denied(revision: str, project: str, image: str) -> Failure:
    """The registry does not let us read the image."""
    text = (
        f"Google Cloud Run Service Agent service-{project}@serverless-robot-prod.iam.gserviceaccount.com must have permission to read the "
        f"image, {image}. Ensure that the provided container image URL is correct and that the above account has permission to access the "
        "image. If you just enabled the Cloud Run API, the permissions might take a few minutes to propagate."
    )
    return Failure(_not_ready(revision, text), Common.CONTAINER_PERMISSION_DENIED, False)


def image_unreachable(revision: str, image: str, error: str) -> Failure:
    """The registry does not answer, or the image does not fit on the disk [approximated: the real registry always answers]."""
    return Failure(_not_ready(revision, f"Image '{image}' could not be fetched: {error}"), Common.POSTPONED_RETRY, False)


def refused(revision: str, error: str) -> Failure:
    """The Docker Engine does not make or start the container [approximated]."""
    return Failure(_not_ready(revision, f"The Docker Engine refused to run its container: {error}"), Common.INTERNAL, False)


def image_architecture(revision: str, image: str, media_type: str) -> Failure:
    """The image is not for amd64/linux."""
    text = f"Cloud Run does not support image '{image}': Container manifest type '{media_type}' must support amd64/linux."
    return Failure(_not_ready(revision, text), Common.CONTAINER_MISSING, False)


def secret_refused(revision: str, where: str, secret: str, version: str, account: str, refusal: Refusal) -> Failure:
    """A secret of the environment or of a volume is not given out: there is none, its version is not enabled, or access is denied."""
    _, project, _, name = secret.split("/")
    numbered = f"projects/{project_number(project)}/secrets/{name}/versions/{version}"
    if refusal.code == Code.NOT_FOUND:
        text = f"Secret {numbered} was not found"
    elif refusal.code == Code.PERMISSION_DENIED:
        text = (
            f"Permission denied on secret: {numbered} for Revision service account {account}. The service account used must be granted the "
            "'Secret Manager Secret Accessor' role (roles/secretmanager.secretAccessor) at the secret, project or higher level."
        )
    else:
        text = f"Failed to access secret {secret}/versions/{version}: {refusal.message}"
    return Failure(_not_ready(revision, f"{where}: {text}"), Common.SECRETS_ACCESS_CHECK_FAILED, False)


def secret_not_text(revision: str, where: str, secret: str, version: str) -> Failure:
    """A secret whose bytes no environment variable can have [real words after its name]."""
    text = f"Secret {secret}/versions/{version} contains non-UTF8 data. Instance startup will now abort."
    return Failure(_not_ready(revision, f"{where}: {text}"), Common.SECRETS_ACCESS_CHECK_FAILED, False)


def not_executed(error: str) -> tuple[str, str]:
    """The system log's lines about a command that cannot be run; the Engine's reason stands where the real sandbox's would."""
    return f"terminated: Application failed to start: {error}", "Application exec likely failed"


def exited(code: int) -> str:
    """The system log's line about a container that ended: by itself, or by a signal (the shell's 128 + n)."""
    return f"Container terminated on signal {code - 128}." if code > 128 else f"Container called exit({code})."


def out_of_memory(limit_mib: int) -> str:
    """The system log's line about a container that used too much memory; what it used is not known here [approximated]."""
    return (
        f"Memory limit of {limit_mib} MiB exceeded with {limit_mib + 1} MiB used. Consider increasing the memory limit, see "
        "https://cloud.google.com/run/docs/configuring/memory-limits"
    )

"""States that tests import."""

from typing import Any

from clouds import PARENT

TARGET = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"


def given(*names: str, image: str = "localhost:1/p/app/none@sha256:" + "0" * 64) -> dict[str, Any]:
    """Services with two revisions each, 90 and 10 percent, as short as a file may be."""
    template = {"containers": [{"image": image}]}
    services, revisions = [], []
    for name in names:
        split = [
            {"type": TARGET, "revision": f"{name}-a", "percent": 90},
            {"type": TARGET, "revision": f"{name}-b", "percent": 10, "tag": "next"},
        ]
        full = f"{PARENT}/services/{name}"
        services.append({"name": full, "template": template, "traffic": split, "annotations": {"team": "x"}, "invokerIamDisabled": True})
        revisions += [{"name": f"{full}/revisions/{name}-{each}", **template} for each in "ab"]
    entry = {"logName": "projects/test-project/logs/app", "textPayload": "hello", "timestamp": "2026-01-02T03:04:05Z", "insertId": "one"}
    return {"services": services, "revisions": revisions, "entries": [entry]}

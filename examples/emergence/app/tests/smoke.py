"""Smoke test of a running service: python tests/smoke.py --base-url URL.

The credentials come from EMERGENCE_SMOKE_EMAIL and EMERGENCE_SMOKE_PASSWORD. Exit code: 0 all passed, 1 something failed,
2 not run (no credentials).
"""

import argparse
import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any


class Failed(Exception):
    """The answer is not the one that was expected."""


class Service:
    def __init__(self, base_url: str, email: str, password: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._login = "Basic " + base64.b64encode(f"{email}:{password}".encode()).decode()

    def ask(self, path: str, body: dict[str, Any] | None = None, *, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(
            self._base_url + path,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": self._login, "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                value = json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(f"{method} {path}: HTTP {error.code}") from None
        except (OSError, ValueError) as error:
            raise Failed(f"{method} {path}: {error}") from None
        if not isinstance(value, dict) or value.get("status") != "ok":
            raise Failed(f"{method} {path}: status is not ok")
        return value


def steps(service: Service) -> dict[str, Callable[[], object]]:
    document = {"name": "smoke.txt", "content": "Emergence se souvient."}
    return {
        "Backend health check": lambda: service.ask("/api/health"),
        "Upload document": lambda: service.ask("/api/documents", document, method="POST"),
        "Memory clear": lambda: service.ask("/api/memory/clear", method="POST"),
        "Benchmarks": lambda: service.ask("/api/benchmarks"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Smoke test of a running service.")
    parser.add_argument("--base-url", required=True)
    base_url = parser.parse_args().base_url
    email, password = os.environ.get("EMERGENCE_SMOKE_EMAIL"), os.environ.get("EMERGENCE_SMOKE_PASSWORD")
    if not email or not password:
        print("EMERGENCE_SMOKE_EMAIL and EMERGENCE_SMOKE_PASSWORD are not set: nothing was tested", file=sys.stderr)
        return 2
    failures = 0
    for name, step in steps(Service(base_url, email, password)).items():
        try:
            step()
        except Failed as failed:
            failures += 1
            print(f"❌ {name}: {failed}")
        else:
            print(f"✅ {name}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

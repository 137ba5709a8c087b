"""Says which of the required distributions the base image carries; fails where one is missing or too old."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))


def problem(line: str) -> str | None:
    name, _, least = line.partition(">=")
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is not in the base image"
    print(f"{name} {found} (wanted {least or 'any'})")
    return f"{name} {found} is older than {least}" if least and numbers(found) < numbers(least) else None


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    sys.exit("\n".join(filter(None, map(problem, lines))) or None)

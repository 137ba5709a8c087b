"""python -m backend: serves on 0.0.0.0:$PORT until SIGTERM."""

import logging.config
import os
import signal
import sys
import time

import uvicorn

from backend.faults import BadFault, Faults
from backend.main import create_app

log = logging.getLogger("backend")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    configure_logging(os.environ.get("LOG_LEVEL", "INFO"))
    try:
        faults, port = Faults.read(), int(os.environ.get("PORT", "8080"))
    except (BadFault, ValueError) as error:
        sys.exit(f"backend: {error}")
    start_badly(faults)
    log.info("Emergence starts on port %d", port)
    uvicorn.run(create_app(faults), host="0.0.0.0", port=port, log_config=None, access_log=False, lifespan="on")


def configure_logging(level: str) -> None:
    """Plain lines on standard output; of uvicorn its warnings only."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"plain": {"format": "%(message)s"}},
            "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "plain"}},
            "root": {"level": level.upper(), "handlers": ["stdout"]},
            "loggers": {"uvicorn": {"level": "WARNING"}, "asyncio": {"level": "WARNING"}},
        }
    )


def start_badly(faults: Faults) -> None:
    """The faults that come before the first request."""
    if faults.traceback_at_start:
        try:
            raise ImportError("cannot import name 'gardener' from 'backend.features.memory'")
        except ImportError:
            log.exception("Memory gardener left out")
    if faults.crash_at_start:
        raise RuntimeError("FAULT_CRASH_AT_START")
    if faults.never_listen:
        log.warning("FAULT_NEVER_LISTEN: running, and listening on nothing")
        while True:
            time.sleep(3600)
    time.sleep(faults.slow_start_seconds)


if __name__ == "__main__":
    main()

"""What aiohttp's servers log: a malformed request is the client's doing, and one line; our own errors keep their traceback."""

import logging

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.log import server_logger


def shorten() -> None:
    """Write malformed requests as one line each, from now on."""
    server_logger.addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, HttpProcessingError):
        reason = error.message.strip().split("\n", 1)[0].rstrip(":")
        record.msg, record.args = "%s; the answer was %d: %s", (record.getMessage(), error.code, reason[:200])
        record.levelno, record.levelname, record.exc_info, record.exc_text = logging.INFO, "INFO", None, None
    return True

# SPDX-License-Identifier: Apache-2.0
"""Logs of one line each: ``time=... level=... msg=... key=value``, as Clipper's own."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone

from clipper_container.errors import describe

_KNOWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\\]+")


class LineFormatter(logging.Formatter):
    """Writes a record, what was given as ``extra`` and the traceback on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": {"WARNING": "WARN", "CRITICAL": "ERROR"}.get(record.levelname, record.levelname),
            "msg": record.getMessage(),
        }
        if record.name not in ("root", "clipper_container"):
            fields["logger"] = record.name
        fields.update((key, value) for key, value in vars(record).items() if key not in _KNOWN)
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = repr(record.exc_info[1])
            fields["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure(level: str) -> None:
    """Sends the logs and warnings of the whole process to stderr, unless the program has set up
    logging by itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)


def last_line(error: BaseException) -> None:
    """Says on stderr why the process ends. Whoever started it shows the last line, so this one is for people, and
    nothing follows: not even what a framework has to say about its end."""
    print(" ".join(describe(error).split()), file=sys.stderr, flush=True)
    logging.disable()

"""A file with one JSON line for each sending of text and each refusal to send it."""

import json
import os
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from ..errors import PolicyError, Withheld
from ..rules.residency import Audit


class AuditLog:
    """Appends records to a file, each in one write: hashes and counts, never text.

    Raises `PolicyError` if the file cannot be opened, and
    `Withheld` if a record cannot be written: without a record nothing is sent. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            # Append mode: several processes may share the file, and nothing in it is ever changed.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            message = (
                f"the audit file {path} cannot be opened ({error.strerror}); give a path that can "
                "be written, or leave audit out"
            )
            raise PolicyError(message) from error

    def __call__(self, record: Audit) -> None:
        """Append one record."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **asdict(record)}
        data = json.dumps(line, ensure_ascii=True).encode() + b"\n"
        try:
            with self._lock:
                written = os.write(self._file, data)
        except OSError as error:
            message = (
                f"the audit record could not be written to {self.path} ({error.strerror}); "
                "nothing was sent"
            )
            raise Withheld(message) from error
        if written != len(data):
            message = f"the audit record in {self.path} is cut off; nothing was sent"
            raise Withheld(message)

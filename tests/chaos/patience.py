"""kubectl for a harness that kills the API server itself: an outage is waited for, not an error."""

from __future__ import annotations

import re
import subprocess
import time
from typing import Final

from cluster import Api

OUTAGE: Final = re.compile(
    r"connection refused|was refused|connection reset|Unable to connect|connection lost|\bEOF\b"
    r"|timed? ?out|deadline exceeded|ServiceUnavailable|currently unable to handle|etcdserver"
    r"|apiserver not ready|InternalError|shutting down"
)
"""What kubectl says while the API server is away, or not yet itself."""
PATIENCE: Final = 60.0
"""Seconds until an outage is an error after all."""


class PatientApi(Api):
    """A cluster whose API server comes and goes."""

    def kubectl(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs kubectl, again and again during an outage."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = super().kubectl("--request-timeout=20s", *args, stdin=stdin)
            is_outage = done.returncode != 0 and OUTAGE.search(done.stderr)
            if not is_outage or time.monotonic() > deadline:
                return done
            time.sleep(0.5)

"""Frameworks are kept from phoning home."""

import os

# Read when haystack is imported, which is before any fixture runs.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"

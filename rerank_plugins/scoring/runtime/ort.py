"""The only door to ONNX Runtime: its telemetry, on by default from 1.29 on, is switched off first.

The library starts to report when it is imported, and its own call then stops only a part of that.
So its environment variable is set before; child processes inherit it.
"""

import logging
import os
import sys
from types import ModuleType

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime's own variable; a user who wants its telemetry sets it to 0."""
_KEEPS_IT_ON = frozenset({"0", "false", "no", "off"})

_logger = logging.getLogger(__name__)


def onnxruntime() -> ModuleType:
    """Return the library, with its telemetry off unless the user's environment keeps it on."""
    position = os.environ.get(VARIABLE, "").strip().lower()
    if position not in _KEEPS_IT_ON | {"1"}:
        if "onnxruntime" in sys.modules and not position:
            message = "onnxruntime was imported earlier, and may report to its maker: set %s=1"
            _logger.warning(message, VARIABLE)
        os.environ[VARIABLE] = "1"
    import onnxruntime as library

    if position not in _KEEPS_IT_ON:
        library.disable_telemetry_events()
    return library  # type: ignore[no-any-return]


def quantization() -> ModuleType:
    """Return the library's module that writes int8 weights; see `onnxruntime`."""
    onnxruntime()
    from onnxruntime import quantization as module

    return module  # type: ignore[no-any-return]

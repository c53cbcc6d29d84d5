"""How the embedded model is made, end to end; see README.md."""

import os

# Read by onnxruntime and huggingface_hub when they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

"""What the numbers were measured on: CPU, memory, versions, and the matrix product's peak."""

import json
import os
import platform
import re
import subprocess
from pathlib import Path

# Libraries that report to their makers would do so while they are measured.
for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("INFINITY_ANONYMOUS_USAGE_STATS", "0")

_PEAK = """
import json, time, numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
a = np.random.rand(2048, 2048).astype(np.float32)
io = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2048, 2048]) for name in "xy"]
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
                          io[:1], io[1:], [numpy_helper.from_array(a, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
session = ort.InferenceSession(model.SerializeToString())
products = {"numpy": lambda: a @ a, "onnxruntime": lambda: session.run(None, {"x": a})}
try:
    import torch
    b = torch.from_numpy(a)
    products["torch"] = lambda: b @ b
except ImportError: pass
peaks = dict.fromkeys(products, 0.0)
for _ in range(15):
    for name, product in products.items():
        started = time.perf_counter(); product()
        peaks[name] = max(peaks[name], 2 * 2048**3 / (time.perf_counter() - started) / 1e9)
names = ("onnxruntime torch transformers sentence-transformers openvino flashrank fastembed "
         "optimum tokenizers numpy").split()
from importlib.metadata import version, PackageNotFoundError
found = {}
for name in names:
    try: found[name] = version(name)
    except PackageNotFoundError: pass
print(json.dumps({"sgemm_gflops": max(peaks.values()), "sgemm": peaks, "versions": found}))
"""


def describe(python: str) -> dict[str, object]:
    """Describe this machine and the peers' environment."""
    measured = subprocess.run([python, "-c", _PEAK], check=True, capture_output=True, text=True)
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    model = re.search(r"^model name\s*: (.*)$", info, flags=re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", info, flags=re.MULTILINE)
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "cpu": model.group(1) if model else platform.processor(),
        "cores": os.cpu_count(),
        "features": [one for one in wanted if flags and one in flags.group(1).split()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        **json.loads(measured.stdout),
    }

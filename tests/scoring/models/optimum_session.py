"""Run in an environment with optimum: export a random checkpoint with it, print what came out.

python -m tests.optimum_session FOLDER
"""

import json
import sys
from pathlib import Path

import transformers

from rerank_plugins.scoring.export.export import export
from tests.scoring import families

home = Path(sys.argv[1])
bert = next(one for one in families.FAMILIES if one.name == "bert")
made = families.build(bert, home / "checkpoint")
done = export(str(made.folder), home / "out", exporter="optimum")
assert done.parity is not None
print(  # noqa: T201 - the test reads it
    json.dumps(
        {
            "transformers": transformers.__version__,
            "exporter": done.exporter,
            "difference": done.parity.difference,
            "same_order": done.parity.same_order,
            "files": sorted(done.files),
        }
    )
)

"""Run the command line as `python -m rerank_plugins.cli`."""

import sys

from . import main

sys.exit(main())

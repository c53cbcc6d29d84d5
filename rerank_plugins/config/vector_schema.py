"""Settings of a stage that compares vectors of an encoder, and remembers those of passages."""

from typing import Literal

from pydantic import Field

from ..scoring import Scorer
from ..scoring.models.hub import Hub
from ..scoring.onnx.options import OnnxOptions
from .tables import LocalPath, ModelName, Positive, Table


class EncoderSettings(Table):
    """An encoder: `scorer = { encoder = "embedded" }`, the first of two stages."""

    encoder: ModelName = Field(
        description='"embedded", a hub id (sentence-transformers), a folder, or an .onnx file'
    )
    memory_mb: Positive = Field(
        default=64, description="megabytes for remembered vectors, about 100,000 passages in 64"
    )
    memory_dir: LocalPath | None = Field(
        default=None,
        description="folder of remembered vectors that processes share; None: in this process only",
    )
    memory_precision: Literal["int8", "fp16"] = Field(
        default="int8", description="numbers that vectors are remembered in"
    )

    def scorer(self, reading: OnnxOptions, hub: Hub) -> Scorer:
        """Return the scorer, loaded. Raises `ModelError` and `ConfigError`."""
        from ..scoring.vectors.encoder import Encoder
        from ..scoring.vectors.layout import find_encoder
        from ..scoring.vectors.memory import LocalRows, VectorMemory, row_type
        from ..scoring.vectors.scorer import VectorScorer
        from ..scoring.vectors.shared_rows import SharedRows

        encoder = Encoder(find_encoder(self.encoder, hub=hub), reading)
        max_bytes = self.memory_mb * 2**20
        row_bytes = row_type(encoder.dimensions, self.memory_precision).itemsize
        memory = VectorMemory(
            LocalRows(max_bytes, row_bytes)
            if self.memory_dir is None
            else SharedRows(self.memory_dir, max_bytes),
            encoder.identity,
            encoder.dimensions,
            precision=self.memory_precision,
            unit=encoder.layout.similarity == "cosine",
        )
        return VectorScorer(encoder, memory)

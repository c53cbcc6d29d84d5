"""A Haystack pipeline from YAML: BM25 retrieves, the ranker reads."""

import os
from pathlib import Path

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "false")  # read by the next import

from haystack import Document, Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore

NOTES = [
    "Cats sleep twelve to sixteen hours a day, mostly while it is light.",
    "How long do you want to wait for a table? Do cats allow you to book?",
    "Do a long walk a day, how long is up to you, and do not sleep in.",
    "Bread dough rests for an hour before it is baked.",
]

store = InMemoryDocumentStore(index="notes")  # the store that the pipeline names
store.write_documents([Document(content=note) for note in NOTES])
pipeline = Pipeline.loads(Path(__file__).with_name("haystack_pipeline.yaml").read_text())
query = {"query": "how long do cats sleep"}
pipeline.warm_up()
output = pipeline.run({"retriever": query, "ranker": query}, include_outputs_from={"retriever"})
print("retrieved:", output["retriever"]["documents"][0].content)
print("reranked: ", output["ranker"]["documents"][0].content)
print("degraded?", output["ranker"]["meta"]["degraded"])
# retrieved: Do a long walk a day, how long is up to you, and do not sleep in.
# reranked:  Cats sleep twelve to sixteen hours a day, mostly while it is light.
# degraded? False

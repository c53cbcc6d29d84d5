"""One contract for every door: a document's label reaches the policy, or its text stays here."""

import pickle
from types import MappingProxyType

import pytest

from rerank_plugins import Candidate, Policy, Reranker
from rerank_plugins.errors import PolicyError
from rerank_plugins.rules.residency import UNREADABLE, merged, metadata_of
from rerank_plugins.testing import FakeRerankServer
from tests.contracts.doors import DOORS, KEY, QUERY, document, settings_file

SECRET = "the red fox sleeps in winter"
FREE = "a fox in the open field"
# A label, and whether its text may go to a server on this machine.
SHAPES = (
    ("on-prem", True),
    (["on-prem"], True),
    (["eu", "on-prem"], True),
    ("eu", False),
    (["eu"], False),
    ([], False),
    (None, False),
    ("", False),
    (7, False),
    (True, False),
    ([["on-prem"]], False),
    ({"region": "on-prem"}, False),
)
UNREADABLE_METADATA = ("residency: on-prem", [{"residency": "on-prem"}], 7)


@pytest.fixture(scope="module")
def server():
    """Start the only destination, which lies on-prem."""
    with FakeRerankServer("cohere") as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch):
    """Set the provider's key."""
    monkeypatch.setenv("COHERE_API_KEY", "k")


@pytest.fixture
def asked(server, tmp_path, capsys):
    """Return a function that asks through a door and returns what the server got."""

    def ask(door, documents, **policy) -> str:
        server.requests.clear()
        before = server.bytes_received
        policy = {"regions": ["on-prem"], **policy}
        with settings_file(tmp_path, policy, {"base_url": server.url}) as config:
            door.ask(config, documents)
        capsys.readouterr()
        if server.bytes_received == before:
            return ""
        return b"".join(request.body for request in server.requests).decode()

    return ask


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_a_label_keeps_its_text_here_and_no_other(door, asked):
    """Every shape of label in every place: withheld texts never arrive, the others do."""
    for place in door.places:
        for label, allowed in SHAPES:
            case = (place, label)
            documents = [document(FREE, place, "on-prem"), document(SECRET, place, label)]
            seen = asked(door, documents, per="candidate")
            assert FREE in seen, case
            assert (SECRET in seen) == allowed, case


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_one_document_that_stays_keeps_its_request_here(door, asked):
    """By request, a withheld text means that not a byte is sent."""
    for place in door.places:
        for label, allowed in SHAPES:
            seen = asked(door, [document(SECRET, place, label)])
            if "label-free" in door.name or door.name == "cli-eval-lines":
                # Its second topic is another request.
                seen = seen if SECRET in seen else ""
            assert (seen != "") == allowed, (place, label)


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_without_a_label_the_policy_decides(door, asked):
    """A document without a label leaves, unless the policy says that it stays."""
    if door.name.endswith("twins"):
        pytest.skip("asks with an unlabelled twin anyway")
    for place in door.places:
        assert SECRET in asked(door, [document(SECRET, place)])
        assert SECRET not in asked(door, [document(SECRET, place)], unlabelled="deny")
        labelled = [document(SECRET, place, "on-prem")]
        assert SECRET in asked(door, labelled, unlabelled="deny")


@pytest.mark.parametrize("door", [one for one in DOORS if "own" in one.places], ids=str)
@pytest.mark.parametrize("field", ["metadata", "meta"])
def test_metadata_that_cannot_be_read_keep_the_text_here(door, field, asked):
    """Where metadata should be an object and is none, nobody knows what it says."""
    for metadata in UNREADABLE_METADATA:
        value = [*metadata, *metadata] if isinstance(metadata, list) else metadata
        assert SECRET not in asked(door, [{"text": SECRET, field: value}]), metadata
    assert SECRET in asked(door, [{"text": SECRET, field: None}])


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_another_key_is_read_where_the_policy_names_one(door, asked):
    """The key of a label is the policy's, at every door."""
    for place in door.places:
        assert SECRET in asked(door, [document(SECRET, place, "eu")], residency_key="zone")
        labelled = document(SECRET, place, "eu", key="zone")
        assert SECRET not in asked(door, [labelled], residency_key="zone")


def test_of_two_labels_in_one_document_both_count(asked):
    """A label beside another one can narrow it, and never widen it."""
    doors = [one for one in DOORS if "own" in one.places and one.name != "ray-columns"]
    for door in doors:
        for own, inner, allowed in (
            ("on-prem", "eu", False),
            ("eu", "on-prem", False),
            ("on-prem", None, False),
            ("on-prem", ["eu", "on-prem"], True),
        ):
            both = {"text": SECRET, KEY: own, "metadata": {KEY: inner}}
            assert (SECRET in asked(door, [both])) == allowed, (door, own, inner)


# Ray's documents are a request each here, and a dict's label is a part of its text.
@pytest.mark.parametrize(
    "door",
    [one for one in DOORS if not one.name.startswith(("ray", "langchain-rerank-d"))],
    ids=str,
)
def test_the_same_text_stays_if_any_of_its_documents_has_to(door, asked):
    """Duplicates are scored once, and only where all of them may be scored."""
    place = door.places[0]
    for labels in (("on-prem", "eu"), ("eu", "on-prem"), ("on-prem", None)):
        twins = [document(SECRET, place, label) for label in labels]
        seen = asked(door, [*twins, document(FREE, place, "on-prem")], per="candidate")
        assert FREE in seen
        assert SECRET not in seen, labels


def test_documents_that_share_an_id_or_a_content_share_their_labels(asked, server, tmp_path):
    """Frameworks put metadata into the text, so that texts differ where contents do not."""
    from haystack import Document
    from haystack_integrations.components.rankers.rerank_plugins import RerankPluginsRanker
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.postprocessor.rerank_plugins import RerankPluginsRerank

    metas = [{KEY: "eu", "title": "one"}, {KEY: "on-prem", "title": "two"}]
    policy = {"regions": ["on-prem"], "per": "candidate"}
    with settings_file(tmp_path, policy, {"base_url": server.url}) as config:
        before = server.bytes_received
        ranker = RerankPluginsRanker(config=str(config), meta_fields_to_embed=["title"])
        for ids in ("ab", "aa"):
            pairs = zip(ids, metas, (0.1, 0.9), strict=True)
            given = [Document(id=i, content=SECRET, meta=m, score=s) for i, m, s in pairs]
            assert len(ranker.run(query=QUERY, documents=given)["documents"]) == len(set(ids))
            assert [one.meta for one in given] == metas
        nodes = [NodeWithScore(node=TextNode(text=SECRET, metadata=meta)) for meta in metas]
        rerank = RerankPluginsRerank(config=str(config), top_n=None)
        assert len(rerank.postprocess_nodes(nodes, query_str=QUERY)) == 2
        assert server.bytes_received == before


def test_a_corpus_that_names_a_document_twice_keeps_both_labels(server, tmp_path):
    """The later text is read, and it stays where either of the two lines says so."""
    from rerank_plugins.evaluation import datasets

    (tmp_path / "qrels.txt").write_text("q 0 1 1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "fox"}\n')
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "1", "text": "a", "residency": "eu"}\n{"_id": "1", "text": "a"}\n'
    )
    (tmp_path / "run.trec").write_text("q Q0 1 1 1.0 bm25\n")
    found = datasets.read(tmp_path, run=tmp_path / "run.trec")
    label = Policy().label(found.topics[0].candidates[0].metadata)
    assert label is not None
    assert label.regions == ("eu",)


@pytest.mark.parametrize("source", ["file", "dict"])
def test_a_cross_encoder_refuses_what_its_pairs_cannot_say(source, server, tmp_path):
    """Pairs of strings carry no label: where that could matter, there is no cross-encoder."""
    import json

    from langchain_rerank_plugins import RerankPluginsCrossEncoder

    def make(policy, *urls):
        with settings_file(tmp_path, policy, *urls) as path:
            return RerankPluginsCrossEncoder(
                config=str(path) if source == "file" else json.loads(path.read_text())
            )

    there = {"base_url": server.url}
    before = server.bytes_received
    with pytest.raises(PolicyError, match="unlabelled"):
        make({"regions": ["on-prem"]}, there)
    make({"regions": ["on-prem"]})
    denies = make({"regions": ["on-prem"], "unlabelled": "deny"}, there)
    assert denies.score([(QUERY, SECRET)]) == [0.0] or server.bytes_received == before
    assert server.bytes_received == before
    free = make({}, there)
    assert len(free.score([(QUERY, SECRET)])) == 1
    assert server.bytes_received > before
    assert len(pickle.loads(pickle.dumps(free)).score([(QUERY, FREE)])) == 1


def test_a_cross_encoder_looks_again_at_what_it_loads(server, tmp_path):
    """Settings that change between construction and first use are refused then."""
    from langchain_rerank_plugins import RerankPluginsCrossEncoder

    there = {"base_url": server.url}
    with settings_file(tmp_path, {}, there) as path:
        encoder = RerankPluginsCrossEncoder(config=str(path))
    before = server.bytes_received
    with settings_file(tmp_path, {"regions": ["on-prem"]}, there), pytest.raises(PolicyError):
        encoder.score([(QUERY, SECRET)])
    encoder.config = {"stages": [{"scorer": {"provider": "cohere"}}], "policy": {"regions": ["eu"]}}
    with pytest.raises(PolicyError):
        encoder.score([(QUERY, SECRET)])
    assert server.bytes_received == before


class Broken(dict):
    """Metadata that raise as soon as somebody looks into them."""

    def get(self, *_):
        """Raise."""
        raise RuntimeError

    __getitem__ = __contains__ = __iter__ = get


def _circle():
    metadata: dict[str, object] = {}
    metadata["meta"] = metadata
    return metadata


@pytest.mark.parametrize(
    "odd",
    ["text", b"bytes", 7, ["list"], object(), Broken(), UNREADABLE, _circle(), merged([{}, "no"])],
    ids=lambda one: type(one).__name__,
)
def test_odd_metadata_keep_the_text_here_and_raise_nothing(odd):
    """Whatever somebody puts in place of metadata, the answer is no and the result is whole."""
    label = Policy().label(odd)
    assert label is not None
    assert label.regions == ()
    assert metadata_of({"text": "a", "metadata": odd}) is not None
    assert Policy().label(metadata_of({"text": "a", "metadata": odd})) is not None
    with Reranker("lexical") as reranker:
        assert len(reranker.rerank(QUERY, [Candidate("a fox", metadata=odd)])) == 1


def test_any_mapping_is_read_and_harmless_fields_are_not():
    """Read-only mappings count; a field named meta that is no object says nothing in metadata."""
    assert Policy().label(MappingProxyType({"meta": MappingProxyType({KEY: "eu"})})) is not None
    assert Policy().label({"meta": "a web page's description", "source": 1}) is None
    assert Policy().label(pickle.loads(pickle.dumps(UNREADABLE))) is not None

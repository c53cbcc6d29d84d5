"""Pairs as token ids."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from rerank_plugins import Reranker
from rerank_plugins.errors import InvalidRequest, ModelError
from rerank_plugins.scoring.text.tokenizer import PairTokenizer
from tests import tiny

CLS, SEP, PAD = 2, 3, 0


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    """Load the tiny model's tokenizer."""
    return PairTokenizer(tiny_model / "tokenizer.json")


def test_the_template_is_read_off_the_tokenizer(tokenizer):
    """BERT's pairs are [CLS] query [SEP] passage [SEP], of types 0 and 1."""
    template = tokenizer.template
    assert (template.before, template.between, template.after) == ((CLS,), (SEP,), (SEP,))
    assert (template.query_type, template.passage_type) == (0, 1)
    assert template.special_tokens == 3


def test_pairs_are_laid_out_and_padded(tokenizer):
    """Ids, mask and types of a short and a long pair, by hand."""
    query = tokenizer.query("red fox")
    ids = tokenizer.passages(["hen", "the blue hen"])[0]
    pairs = tokenizer.assemble(query, ids, 9)
    red, fox, hen, the, blue = (
        tiny.VOCABULARY.index(word) for word in ("red", "fox", "hen", "the", "blue")
    )
    assert pairs.input_ids.tolist() == [
        [CLS, red, fox, SEP, hen, SEP, PAD, PAD, PAD],
        [CLS, red, fox, SEP, the, blue, hen, SEP, PAD],
    ]
    assert pairs.attention_mask.sum(axis=1).tolist() == [6, 8]
    assert pairs.token_type_ids.tolist()[0] == [0, 0, 0, 0, 1, 1, 0, 0, 0]


@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=6),
    st.text(max_size=20),
    st.integers(0, 5),
)
def test_any_texts_assemble(tokenizer, texts, query_text, more):
    """Whatever the texts, masks count their tokens and padding is the padding id."""
    query = tokenizer.query(query_text)
    ids = tokenizer.passages(texts)[0]
    lengths = [len(one) + len(query) + tokenizer.template.special_tokens for one in ids]
    pairs = tokenizer.assemble(query, ids, max(lengths) + more)
    assert pairs.attention_mask.sum(axis=1).tolist() == lengths
    assert (pairs.input_ids[pairs.attention_mask == 0] == tokenizer.pad_id).all()


def test_text_cannot_forge_special_tokens(tokenizer):
    """A passage that spells [SEP] holds brackets and letters, not the end of itself."""
    ids = tokenizer.passages(["red [SEP] fox [CLS] [PAD] [MASK]"])[0][0]
    assert not {CLS, SEP, PAD, tiny.VOCABULARY.index("[MASK]")} & set(ids.tolist())


def test_a_query_without_tokens_still_makes_a_pair(tokenizer, tiny_model):
    """Zero-width text is a query of no tokens, which a model can answer all the same."""
    assert len(tokenizer.query("\u200b\u200d")) == 0
    with Reranker(tiny_model) as reranker:
        result = reranker.rerank("\u200b", ["a red fox", "a hen"])
    assert not result.degraded
    assert all(hit.score is not None for hit in result)


def test_a_query_that_leaves_no_room_is_refused(tiny_model):
    """The query is never cut: too long a one is the caller's mistake, and says by how much."""
    with (
        Reranker(tiny_model) as reranker,
        pytest.raises(InvalidRequest, match="the query takes 200 tokens"),
    ):
        reranker.rerank("fox " * 200, ["a"], strict=True)


def test_long_texts_are_tokenised_in_pieces_without_a_seam(tokenizer):
    """Beyond the size of a piece a text gives the ids that its words give."""
    words = [tiny.WORDS[i % 30] for i in range(60_000)]
    ids = tokenizer.passages([" ".join(words)])[0][0]
    assert len(ids) == len(words)
    expected = [tiny.VOCABULARY.index(word) for word in words]
    assert ids.tolist() == expected


def test_a_text_without_spaces_is_cut_somewhere(tokenizer):
    """Even text that offers no place to cut is tokenised in bounded pieces."""
    ids = tokenizer.passages(["一" * 120_000])[0][0]
    assert len(ids) == 120_000


def test_a_foreign_tokenizer_is_refused(tmp_path):
    """A file that is none, and a tokenizer of single texts, say what was expected."""
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ModelError, match=r"is not a tokenizer\.json"):
        PairTokenizer(path)
    bare = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    bare.save(str(path))
    with pytest.raises(ModelError, match="does not mark pairs"):
        PairTokenizer(path)


def wordpiece():
    """Make a tokenizer of few words, and the marks that end sentences in them."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", ".", "?", ",", "\u3002"]
    made = Tokenizer(models.WordPiece({one: i for i, one in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made, {".", "?", "\u3002"}


def bytes_alone():
    """Make a tokenizer of bytes, which writes other scripts' marks in pieces but keeps lines."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({one: i for i, one in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made, {".", "!", "?", "\n"}


@pytest.mark.parametrize("make", [wordpiece, bytes_alone])
def test_the_tokens_that_end_sentences_are_known(tmp_path, make):
    """Full stops, question marks and ends of lines are found, as far as they are tokens."""
    made, marks = make()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.save(str(tmp_path / "tokenizer.json"))
    tokenizer = PairTokenizer(tmp_path / "tokenizer.json")
    assert {made.decode([one]) for one in tokenizer.sentence_ends} == marks


@pytest.mark.parametrize(
    ("pad", "own", "expected"),
    [
        (7, None, 7),
        ("red", None, tiny.VOCABULARY.index("red")),
        (None, ("blue", 9), tiny.VOCABULARY.index("blue")),
        (10**9, None, PAD),
        ("unknown word", None, PAD),
        (None, None, PAD),
    ],
)
def test_padding_is_the_models_then_the_tokenizers_then_the_usual(tmp_path, pad, own, expected):
    """The padding id comes from the model's settings, the tokenizer's, or a usual name."""
    made = tiny.tokenizer()
    if own is not None:
        made.enable_padding(pad_token=own[0], pad_id=own[1])
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    assert PairTokenizer(path, pad=pad).pad_id == expected


def test_settings_of_the_file_do_not_truncate(tmp_path):
    """A tokenizer saved with truncation and padding switched on reads whole texts."""
    made = tiny.tokenizer()
    made.enable_truncation(4)
    made.enable_padding(length=6)
    made.save(str(tmp_path / "tokenizer.json"))
    loaded = PairTokenizer(tmp_path / "tokenizer.json")
    assert len(loaded.passages(["red fox " * 10])[0][0]) == 20


def test_the_tokenizer_is_never_changed_by_use(tmp_path):
    """Threads may share it: no call leaves a trace in its state."""
    path = tmp_path / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    tokenizer = PairTokenizer(path, cache_bytes=0)
    before = json.loads(tokenizer._tokenizer.to_str())
    texts = tiny.passages(40)
    expected = [one.tolist() for one in tokenizer.passages(texts)[0]]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: tokenizer.passages(texts)[0], range(40)))
    assert all([one.tolist() for one in found] == expected for found in rounds)
    assert json.loads(tokenizer._tokenizer.to_str()) == before


def test_the_cache_gives_what_was_put_and_counts_hits(tiny_model):
    """A passage seen before is not tokenised again."""
    tokenizer = PairTokenizer(tiny_model / "tokenizer.json")
    texts = tiny.passages(10)
    first, none = tokenizer.passages(texts)
    again, hits = tokenizer.passages([*texts, "a new one"])
    assert (none, hits) == (0, 10)
    assert all((one == two).all() for one, two in zip(first, again, strict=False))


def test_one_long_text_does_not_push_out_the_others(tmp_path):
    """Ids that take more than an eighth of the cache are not kept; 0 bytes keep nothing."""
    path = tmp_path / "tokenizer.json"
    tiny.tokenizer().save(str(path))
    for cache_bytes, expected in ((10_000, 1), (0, 0)):
        tokenizer = PairTokenizer(path, cache_bytes=cache_bytes)
        texts = ["red fox", "red fox " * 1_000]
        tokenizer.passages(texts)
        assert tokenizer.passages(texts)[1] == expected


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": "[X]", "type_id": 0}}],
                "special_tokens": {},
            }
        },
    ],
    ids=["at-loading", "at-merging", "at-the-first-text"],
)
def test_a_tokenizer_that_panics_is_an_error(tmp_path, change):
    """A panic in the tokenizer's own code is no Exception, and no reason to end the process."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(tiny.tokenizer().to_str()), **change}))
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        PairTokenizer(path)


@pytest.mark.parametrize("word", ["red fox ", "redfox", " \n", "一", "q7+"])
def test_a_long_text_is_read_as_far_as_it_is_wanted(tmp_path, word):
    """What is wanted is as in the whole text; the rest is estimated, not read."""
    path = tiny.build(tmp_path / "m") / "tokenizer.json"
    text = word * (300_000 // len(word))
    (whole,), _ = PairTokenizer(path).passages([text])
    (reading,), _ = PairTokenizer(path).readings([text], most_tokens=100)
    assert reading.ids[:90].tolist() == whole[:90].tolist()
    assert len(reading.ids) + reading.unread_tokens == pytest.approx(len(whole), rel=0.05)
    if len(whole) > 100_000:
        assert len(reading.ids) < len(whole) / 4


def test_reading_ends_when_there_is_no_time_left(tmp_path):
    """What was read is kept; what was not comes back as None, and is not cached as nothing."""
    tokenizer = PairTokenizer(tiny.build(tmp_path / "m") / "tokenizer.json")
    turns = iter([True, True, False, False])
    texts = [f"{number} " + "red fox " * 5_000 for number in range(4)]
    found, _ = tokenizer.readings(texts, in_time=lambda: next(turns, False))
    read = [reading is not None for reading in found]
    assert read == sorted(read, reverse=True)
    assert 0 < sum(read) < 4
    found, hits = tokenizer.readings(texts)
    assert hits == sum(read)
    assert None not in found

"""Request bodies, decoded straight into the fields that are read.

To refuse a body costs no more than a small multiple of its bytes: decoding ends at the first error,
the number of documents is bounded while they are decoded, and ignored fields become no objects.
"""

import re
from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ...records import Candidate
from ...rules.residency import UNREADABLE, metadata_of
from .admission import Limits, Refused
from .dialects import Document, RerankBody, TeiBody

# A longer label, or metadata that are nested deeper, count as a label that cannot be read.
_MAX_LABEL_BYTES = 1024
_MAX_LABEL_DEPTH = 4
_CAUSES = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
Decoded = TypeVar("Decoded")
Decode: TypeAlias = Callable[[bytearray | Raw], Decoded]


class _Labelled(msgspec.Struct):
    """The fields of a document's metadata in which a residency label may stand."""

    label: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET
    meta: Raw | UnsetType = UNSET


class Bodies:
    """Decodes request bodies within `limits`.

    label_key: the policy's `residency_key`, the field that holds a document's residency label
    """

    def __init__(self, limits: Limits, label_key: str) -> None:
        document = _with_label(Document, label_key)
        labelled = _with_label(_Labelled, label_key)
        self._limits = limits
        self._label_key = label_key
        self._rerank = msgspec.json.Decoder(RerankBody, strict=False).decode
        self._tei = msgspec.json.Decoder(TeiBody, strict=False).decode
        self._label = msgspec.json.Decoder(str | list[str]).decode
        self._labelled = msgspec.json.Decoder(cast("type[_Labelled]", labelled)).decode
        self._documents = msgspec.json.Decoder(_row_of(str | document, limits)).decode
        self._texts = msgspec.json.Decoder(_row_of(str, limits)).decode

    def rerank(self, data: bytearray) -> tuple[RerankBody, list[Candidate]]:
        """Return a body that has `documents`, and these as candidates. Raises `Refused`."""
        body = _decoded(self._rerank, data)
        _check_query(body.query)
        documents = self._row(self._documents, body.documents, "documents")
        # A raw field keeps the whole body in memory.
        body.documents = Raw()
        return body, list(map(self._candidate, documents))

    def rerank_or_tei(self, data: bytearray) -> tuple[RerankBody | TeiBody, list[Candidate]]:
        """Return a body that has either `documents` or `texts`. Raises `Refused`."""
        fields = _decoded(_FIELDS, data)
        if fields.texts is UNSET or fields.documents is not UNSET:
            return self.rerank(data)
        body = _decoded(self._tei, data)
        _check_query(body.query)
        texts = self._row(self._texts, body.texts, "texts")
        body.texts = Raw()
        return body, list(map(self._candidate, texts))

    def _row(self, decode: Decode[msgspec.Struct], raw: Raw, name: str) -> list[object]:
        row: list[object] = []
        for item in msgspec.structs.astuple(_decoded(decode, raw, at=name)):
            if item is None:
                break
            text = item if isinstance(item, str) else item.text
            if len(text) > self._limits.max_text_chars:
                limit = f"expected at most {self._limits.max_text_chars} characters"
                raise Refused(422, f"invalid request: {name}.{len(row)}: {limit}")
            row.append(item)
        if not row:
            raise Refused(422, f"invalid request: {name}: expected at least one")
        return row

    def _candidate(self, item: object) -> Candidate:
        if not isinstance(item, Document):
            return Candidate(str(item))
        try:
            fields = self._fields(item, depth=_MAX_LABEL_DEPTH)
        except (*_CAUSES, ValueError):
            return Candidate(item.text, metadata=UNREADABLE)
        if self._label_key == "text":
            fields["text"] = item.text
        return Candidate(item.text, metadata=metadata_of(fields) if fields else None)

    def _fields(self, labelled: Document | _Labelled, *, depth: int) -> dict[str, object]:
        """Return what the policy reads of a document's fields; a field that is absent stays so.

        Raises where there may be a label that cannot be read.
        """
        fields: dict[str, object] = {}
        if isinstance(labelled.label, Raw):
            if len(memoryview(labelled.label)) > _MAX_LABEL_BYTES:
                raise ValueError("a label is too long")
            fields[self._label_key] = self._label(labelled.label)
        for name, raw in (("metadata", labelled.metadata), ("meta", labelled.meta)):
            if isinstance(raw, Raw) and bytes(memoryview(raw)[:5]) != b"null":
                if not depth:
                    raise ValueError("metadata is nested too deep")
                fields[name] = self._fields(self._labelled(raw), depth=depth - 1)
        return fields


class _Fields(msgspec.Struct):
    documents: Raw | UnsetType = UNSET
    texts: Raw | UnsetType = UNSET


_FIELDS = msgspec.json.Decoder(_Fields).decode


def _check_query(query: str) -> None:
    if not query.strip():
        raise Refused(422, "invalid request: query: expected text that is not blank")


def _with_label(kind: type[msgspec.Struct], key: str) -> type[msgspec.Struct]:
    """Return a record whose field `label` is called `key`, unless another field is."""
    name = key if key not in kind.__struct_fields__ else "label"
    label = ("label", Raw | UnsetType, UNSET)
    return msgspec.defstruct("Document", [label], bases=(kind,), rename={"label": name})


def _row_of(kind: object, limits: Limits) -> type[msgspec.Struct]:
    """Return the type of a list of at most `max_candidates` items, filled up with None.

    The bound of a list is checked when all its items are there; that of a record without names
    for its fields ends the decoding at the first item too many.
    """
    fields = [(f"item_{place}", kind, None) for place in range(limits.max_candidates)]
    return msgspec.defstruct("Row", fields, array_like=True, forbid_unknown_fields=True, gc=False)


def _decoded(decode: Decode[Decoded], data: bytearray | Raw, *, at: str = "") -> Decoded:
    try:
        try:
            return decode(data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            mended = bytearray(_ESCAPE.sub(_whole_letter, bytes(data)))
            if mended == data:
                raise
            return decode(mended)
    except RecursionError as error:
        raise Refused(422, f"invalid request: {at or 'body'}: nested too deep") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # Locations and reasons only: the input may be somebody's document.
        raise Refused(422, f"invalid request: {_problem(error, at)}") from None


# An escape of a JSON string; a surrogate with its other half is one escape of two parts.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)",
    re.DOTALL,
)
_ESCAPE_BYTES = 6


def _whole_letter(escape: re.Match[bytes]) -> bytes:
    """Return the escape; for half an emoji, that of the replacement character."""
    found = escape[0]
    half = len(found) == _ESCAPE_BYTES and found[2:3] in b"dD" and found[3:4] not in b"01234567"
    return rb"\ufffd" if half else found


def _problem(error: msgspec.MsgspecError | UnicodeDecodeError, at: str) -> str:
    """Return where a body is wrong, and how.

    >>> _problem(msgspec.ValidationError("Expected `str`, got `int` - at `$[3]`"), "texts")
    'texts.3: expected str, got int'
    """
    if isinstance(error, UnicodeDecodeError):
        return f"{at or 'body'}: expected UTF-8"
    reason, _, path = str(error).replace("`", "").partition(" - at $")
    where = (at + re.sub(r"\[(\d+)\]", r".\1", path)).lstrip(".")
    return f"{where or 'body'}: {reason[:1].lower()}{reason[1:]}"

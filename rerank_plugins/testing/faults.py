"""What can go wrong with a rerank API, each as a value."""

from enum import Enum


class Fault(Enum):
    """A way of answering wrongly, late, or not at all."""

    SHUFFLED = "the rows in another order, which is right"
    DUPLICATE_INDEX = "one index twice, another missing"
    INDEX_OUT_OF_RANGE = "an index equal to the number of documents"
    MISSING_INDEX = "a row short"
    NAN_SCORE = "a score that is not a number"
    INFINITE_SCORE = "a score that is infinite"
    TEXT_SCORE = "a score that is a string"
    WILD_SCORE = "a score of 1e9"
    EMPTY_RESULTS = "no rows"
    NULL_BODY = "200 with the body null"
    NOT_JSON = "200 with half a JSON object"
    HTML = "200 with a web page"
    BAD_GATEWAY = "502 with a web page"
    UNAUTHORIZED = "401 that repeats the key it was given"
    OUT_OF_CREDIT = "402"
    FORBIDDEN = "403"
    NOT_FOUND = "404"
    TOO_LARGE = "413"
    INVALID = "422 that repeats the text it was given"
    RATE_LIMITED = "429 without a hint"
    RETRY_AFTER_INT = "429 with retry-after: 1"
    RETRY_AFTER_FLOAT = "429 with retry-after: 0.05"
    RETRY_AFTER_DATE = "429 with a date a second from now"
    RETRY_AFTER_MS = "429 with retry-after-ms: 50"
    RETRY_AFTER_LONG = "429 with retry-after: 3600"
    SERVER_ERROR = "500"
    UNAVAILABLE = "503"
    ACCEPTED = "202, then 200 when polled"
    OTHER_MODEL = "the scores of another model"
    REDIRECT = "307 to `redirect_to`"
    REDIRECT_SELF = "307 to another path of the same origin"
    SLOW_HEADERS = "headers after `slow_s` seconds"
    DRIP = "the body byte by byte, `slow_s` seconds in all"
    RESET = "the connection reset in the middle of the body"
    CLOSED = "the connection closed before an answer"
    GZIP = "a compressed body, which is right"
    HUGE = "a body that does not end"
    ECHO_TEXT = "each document repeated as a string, which is right"
    ECHO_OBJECT = "each document repeated as an object, which is right"
    TIES = "the same score for every document, which is right"


_ECHOES = {Fault.ECHO_TEXT, Fault.ECHO_OBJECT}
HARMLESS = frozenset({Fault.SHUFFLED, Fault.GZIP, Fault.TIES, Fault.REDIRECT_SELF, *_ECHOES})
"""Faults that a client must not notice."""

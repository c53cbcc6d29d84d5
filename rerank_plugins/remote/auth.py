"""API keys and the headers that carry them: bearer, API key, AWS Signature Version 4."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ConfigError
from .providers import Auth

HIDDEN = "<key>"


@dataclass(frozen=True, slots=True)
class Key:
    """A key that can be had, never a key: `read` asks for it anew, so that keys can be rotated.

    `where` says where it comes from, in words that may be printed.
    """

    where: str
    read: Callable[[], str] = field(repr=False)

    def get(self) -> str:
        """Read the key. Raises `ConfigError` where there is none, or no usable one."""
        key = self.read().strip()
        if not key or not key.isprintable() or not key.isascii():
            message = f"{self.where} holds no usable API key; expected one line of plain text"
            raise ConfigError(message)
        return key


def from_env(name: str) -> Key:
    """Keep a key in an environment variable."""

    def read() -> str:
        return os.environ.get(name, "")

    return Key(f"environment variable {name}", read)


def from_file(path: Path) -> Key:
    """Keep a key in a file, as secret stores mount them."""

    def read() -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"the key file {path} cannot be read ({type(error).__name__})"
            raise ConfigError(message) from error

    return Key(f"file {path}", read)


def hide(text: str, key: str | None) -> str:
    """Take a key out of a text that somebody else wrote, such as an error message.

    >>> hide("invalid api key s3cret", "s3cret")
    'invalid api key <key>'
    """
    return text if not key else text.replace(key, HIDDEN)


def sign(
    auth: Auth, key: Key | None, url: str, body: bytes, headers: Mapping[str, str]
) -> dict[str, str]:
    """Give `headers` and those that authenticate a POST of `body` to `url`."""
    if auth == "aws":
        return _aws(url, body, headers)
    if key is None:
        return dict(headers)
    if auth == "api-key":
        return {**headers, "api-key": key.get()}
    return {**headers, "authorization": f"Bearer {key.get()}"}


def check_signer(auth: Auth) -> None:
    """Refuse a provider whose signer is not installed. Raises `ConfigError`."""
    if auth != "aws":
        return
    try:
        import botocore.auth  # noqa: F401 - only whether it is there
    except ImportError as error:
        message = "Bedrock needs SigV4: pip install 'rerank-plugins[aws]'"
        raise ConfigError(message) from error


def _aws(url: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
    """Sign with AWS Signature Version 4, credentials from where AWS tools keep them."""
    import botocore.session
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest

    credentials = botocore.session.get_session().get_credentials()
    if credentials is None:
        message = (
            "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
        raise ConfigError(message)
    request = AWSRequest(method="POST", url=url, data=body, headers=dict(headers))
    SigV4Auth(credentials.get_frozen_credentials(), "bedrock", region_of(url)).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def region_of(url: str) -> str:
    """Read the region a Bedrock host is named after; us-east-1, as AWS does, where it has none.

    >>> region_of("https://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank")
    'eu-central-1'
    """
    labels = (urlsplit(url).hostname or "").split(".")
    return labels[1] if len(labels) > 2 and "-" in labels[1] else "us-east-1"  # noqa: PLR2004

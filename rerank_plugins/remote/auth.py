"""API keys and the headers that carry them: bearer, API key, AWS Signature Version 4."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..text_files import read_text
from .providers import Auth

_SECRETS = re.compile(r"(?:Bearer |Credential=|Signature=)([^,/\s]+)")
_SECRET_HEADERS = ("api-key", "x-amz-security-token")


@dataclass(frozen=True, slots=True)
class Key:
    """Where an API key is kept; it is read anew for each call, so that keys can be rotated.

    source: where the key comes from, in words that may be printed
    read: returns the key
    """

    source: str
    read: Callable[[], str] = field(repr=False)

    def get(self) -> str:
        """Return the key. Raises `ConfigError` where there is none, or no usable one."""
        key = self.read().strip()
        if not key or not key.isprintable() or not key.isascii():
            message = f"{self.source} holds no usable API key; expected one line of plain text"
            raise ConfigError(message)
        return key


def from_env(name: str) -> Key:
    """Return a key that is kept in an environment variable."""
    return Key(f"environment variable {name}", partial(_read_env, name))


def from_file(path: Path) -> Key:
    """Return a key that is kept in a file, as secret stores mount them."""
    return Key(f"file {path}", partial(_read_file, path))


def secrets_in(headers: Mapping[str, str]) -> list[str]:
    """Return the keys and signatures in headers that `sign` made.

    >>> secrets_in({"authorization": "Bearer s3cret", "accept": "*/*"})
    ['s3cret']
    """
    found = _SECRETS.findall(headers.get("authorization", ""))
    return [*found, *(headers[name] for name in _SECRET_HEADERS if name in headers)]


def check_signer(auth: Auth) -> None:
    """Raise `ConfigError` if the package that signs for a provider is not installed."""
    if auth != "aws":
        return
    try:
        import botocore.auth  # noqa: F401 - only whether it is there
    except ImportError as error:
        message = "Bedrock needs SigV4: pip install 'rerank-plugins[aws]'"
        raise ConfigError(message) from error


def sign(
    auth: Auth, key: Key | None, url: str, body: bytes, headers: Mapping[str, str]
) -> dict[str, str]:
    """Return `headers` with those that authenticate a POST of `body` to `url`."""
    if auth == "aws":
        return _sign_aws(url, body, headers)
    if key is None:
        return dict(headers)
    if auth == "api-key":
        return {**headers, "api-key": key.get()}
    return {**headers, "authorization": f"Bearer {key.get()}"}


def _sign_aws(url: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
    """Sign with AWS Signature Version 4; credentials come from where AWS tools keep them."""
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
    SigV4Auth(credentials.get_frozen_credentials(), "bedrock", _aws_region(url)).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def _aws_region(url: str) -> str:
    """Return the region in the name of a Bedrock host; us-east-1, as AWS does, if it has none.

    >>> _aws_region("https://bedrock-agent-runtime.eu-central-1.amazonaws.com/rerank")
    'eu-central-1'
    """
    labels = (urlsplit(url).hostname or "").split(".")
    return labels[1] if len(labels) > 2 and "-" in labels[1] else "us-east-1"  # noqa: PLR2004


def _read_env(name: str) -> str:
    return os.environ.get(name, "")


def _read_file(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, UnicodeError) as error:
        message = f"the key file {path} cannot be read ({type(error).__name__})"
        raise ConfigError(message) from error

"""The headers that say who asks."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from ...errors import ConfigError
from .keys import Key
from .providers import Auth


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

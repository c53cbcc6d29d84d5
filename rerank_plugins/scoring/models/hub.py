"""A model's snapshot from the Hugging Face hub or its local cache."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ModelError

# Read by huggingface_hub and transformers when they are imported. Without them the first also
# fetches a list of coding agents, to report whether one runs it, and the second asks a service to
# convert a model that has no safetensors.
_REPORTS_OFF = {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"}


@dataclass(frozen=True, slots=True)
class Hub:
    """Options of huggingface-hub; the environment's HF_HUB_OFFLINE counts as `local_files_only`.

    revision: a branch, a tag, or the commit to pin.
    """

    revision: str | None = None
    local_files_only: bool = False
    cache_dir: Path | None = None
    token: str | None = None


def snapshot(name: str, hub: Hub, choose: Callable[[Sequence[str]], list[str]]) -> Path:
    """Fetch the files that `choose` picks from a repository's; return the snapshot's folder.

    The local cache serves where the hub is switched off or out of reach. Raises `ModelError`.
    """
    switch_off_reports()
    from huggingface_hub import constants

    failure: Exception | None = None
    if not (hub.local_files_only or constants.HF_HUB_OFFLINE):
        try:
            return _fetched(name, hub, choose)
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 - the hub's client changes, and its errors with it
            failure = error
    folder = _cached(name, hub)
    if folder is None:
        reason = str(failure) if failure else "it is not in the local cache, and the hub is off"
        message = (
            f"model {name!r} could not be fetched: {reason}. Check the id, fetch it once while "
            "online, or give a local folder"
        )
        raise ModelError(message) from failure
    return folder


def local_cache() -> tuple[Path, bool]:
    """Return the folder of the local cache, and True if the environment switches the hub off."""
    switch_off_reports()
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE), constants.HF_HUB_OFFLINE


def switch_off_reports() -> None:
    """Keep the hub's libraries to the files that are asked for, unless the user's environment says.

    To be called before `huggingface_hub` or `transformers` is imported.
    """
    for variable, value in _REPORTS_OFF.items():
        os.environ.setdefault(variable, value)


def _fetched(name: str, hub: Hub, choose: Callable[[Sequence[str]], list[str]]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    api = HfApi(library_name="rerank-plugins", token=hub.token)
    siblings = api.model_info(name, revision=hub.revision).siblings
    folder = snapshot_download(
        name,
        revision=hub.revision,
        cache_dir=hub.cache_dir,
        allow_patterns=choose([sibling.rfilename for sibling in siblings or []]),
        token=hub.token,
        library_name="rerank-plugins",
    )
    return Path(folder)


def _cached(name: str, hub: Hub) -> Path | None:
    """Return a model's snapshot in the local cache, whole or in part."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        name, "tokenizer.json", cache_dir=hub.cache_dir, revision=hub.revision
    )
    return Path(path).parent if isinstance(path, str) else None

"""A model's snapshot from the Hugging Face hub or its local cache."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...errors import ModelError, ModelUnavailable

# Read by huggingface_hub and transformers when they are imported. Without them the first also
# fetches a list of coding agents, to report whether one runs it, and the second asks a service to
# convert a model that has no safetensors.
_REPORTS_OFF = {"HF_HUB_DISABLE_TELEMETRY": "1", "DISABLE_SAFETENSORS_CONVERSION": "1"}
# The hub's client waits for ever by default: for a connection, and for each part of an answer.
_ANSWER_S = 5.0


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

    The local cache serves where the hub is switched off, out of reach, or does not answer. Raises
    `ModelError` for a model that the hub has not, else `ModelUnavailable`.
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
        raise (ModelError if _is_final(failure) else ModelUnavailable)(message) from failure
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
    """Fetch file by file: the client's `snapshot_download` asks questions without a timeout."""
    from huggingface_hub import HfApi, hf_hub_download

    api = HfApi(library_name="rerank-plugins", token=hub.token)
    info = api.model_info(name, revision=hub.revision, timeout=_ANSWER_S)
    names = [sibling.rfilename for sibling in info.siblings or []]
    wanted = [file for file in choose(names) if file in names]
    if not wanted:
        raise ModelError(f"model {name!r} has none of the files that are needed on the hub")
    for file in wanted:
        path = hf_hub_download(
            name,
            file,
            revision=info.sha or hub.revision,
            cache_dir=hub.cache_dir,
            token=hub.token,
            library_name="rerank-plugins",
            etag_timeout=_ANSWER_S,
        )
    folder = Path(path).parents[len(PurePosixPath(file).parts) - 1]
    _remember_revision(folder, hub.revision or "main")
    return folder


def _is_final(failure: Exception | None) -> bool:
    """True if the hub answered that it has no such model, or none for this user."""
    from huggingface_hub import errors

    refusals = (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
        errors.HFValidationError,
    )
    return isinstance(failure, refusals)


def _remember_revision(folder: Path, revision: str) -> None:
    """Note the commit that a branch or tag names now, so that the cache alone can serve it."""
    commit, note = folder.name, folder.parents[1] / "refs" / revision
    if revision == commit:
        return
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        if not note.is_file() or note.read_text(encoding="utf-8") != commit:
            fresh = note.with_name(f"{note.name}.{os.getpid()}")
            fresh.write_text(commit, encoding="utf-8")
            fresh.replace(note)


def _cached(name: str, hub: Hub) -> Path | None:
    """Return a model's snapshot in the local cache, whole or in part."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(
        name, "tokenizer.json", cache_dir=hub.cache_dir, revision=hub.revision
    )
    return Path(path).parent if isinstance(path, str) else None

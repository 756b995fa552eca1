"""The Hugging Face Hub: the names of what is there, a run from there, and what its client raises as our errors.

A token is huggingface_hub's business alone: HF_TOKEN, or what `hf auth login` keeps.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastcls.errors import EnvironmentProblem, FastclsError, UsageError
from fastcls.runfolder import inside

PREFIX = "hf://"
DATASETS = "hf://datasets/"
SIGN_IN = "Sign in once with  hf auth login , or set HF_TOKEN."
# what `push` sends of a run and `run` fetches: no checkpoints, no log, and never a pickle
MODEL = ("run.json", "model.json", "model.safetensors", "model.onnx", "metrics.json", "history.csv", "recipe.py")
REPORT = (  # these show images or their names
    "report.html",
    "predictions.csv",
    "probe.csv",
    "splits.csv",
    "suspects.csv",
    "slices.csv",
    "heatmaps.json",
    "evaluation.json",
)


class Name(NamedTuple):
    """A repository and a branch, tag or commit of it; None is its main branch."""

    repository: str
    revision: str | None = None


def parsed(text: str, prefix: str = "") -> Name:
    """The repository that `[prefix]OWNER/NAME[@REVISION]` means; UsageError where it has another form."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@(\S+))?", text.removeprefix(prefix))
    if found is None or ".." in found[1] or "--" in found[1]:
        raise UsageError(
            f"{text}: no such repository on the Hub, whose names have the form OWNER/NAME.",
            f"Use {prefix}OWNER/NAME, as in its address.",
        )
    return Name(found[1], found[2])


def run(text: str) -> Path:
    """The run folder of `hf://OWNER/NAME[@REVISION]`, downloaded, or as it was kept on this machine.

    Of the repository only the files of a run are fetched. They are laid out without the cache's links, so that the rule
    for run folders (`inside`) holds for them as for any other third party's. UsageError where it holds no run.
    """
    name = parsed(text, PREFIX)
    with reached(text):
        import platformdirs
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            record = download(name.repository, "run.json", name.revision)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            raise UsageError(
                f"{text} is not a fastcls run: it has no run.json.",
                f"If it has timm weights:  --weights hf-hub:{text.removeprefix(PREFIX)}",
            ) from None
        commit = record.parent.name
        own = f"{name.repository.replace('/', '--')}--{commit[:12]}"
        folder = Path(platformdirs.user_cache_dir("fastcls"), "hub", own)
        if not folder.is_dir():  # one that is there is whole
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                part, files = Path(scratch, "run"), [*MODEL, *REPORT]
                snapshot_download(name.repository, revision=commit, allow_patterns=files, local_dir=part)
                with contextlib.suppress(OSError):  # another process was faster
                    part.replace(folder)
    inside.check(folder)
    return folder


def download(repository: str, file: str, revision: str | None = None) -> Path:
    """A file of a repository, fetched unless it is kept on this machine."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(repository, file, revision=revision), str):
        connect()
    return Path(hf_hub_download(repository, file, revision=revision))


def connect() -> None:
    """Raise what huggingface_hub raises where there is no way to the Hub, in seconds: itself it tries a minute long.

    A Hub that is slow to answer is left to it, and a download keeps all of its attempts.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    for pause in (2, 0):
        try:
            get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return
        except Exception as problem:  # of the client that huggingface_hub uses, which changed before
            if not type(problem).__name__.startswith(("Connect", "Proxy")):
                return
            if not pause:
                raise
        time.sleep(pause)


@contextlib.contextmanager
def reached(name: str, unreachable: type[FastclsError] = EnvironmentProblem) -> Iterator[None]:
    """Turn what huggingface_hub raises meanwhile into our errors; `name` is what the user asked for.

    UsageError where the Hub has no such thing, EnvironmentProblem where it wants to know who asks, `unreachable` where
    it does not answer and nothing is kept on this machine.
    """
    try:
        yield
    except (FastclsError, ImportError):
        raise
    except Exception as problem:  # of the client that huggingface_hub uses, which changed before
        raise _translated(name, problem, unreachable) from None


def _translated(name: str, problem: Exception, unreachable: type[FastclsError]) -> FastclsError:
    from huggingface_hub import errors, get_token

    status = getattr(getattr(problem, "response", None), "status_code", None)
    reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    if isinstance(problem, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return unreachable(
            f"{name}: the Hub cannot be reached, and there is no local copy.",
            "Connect to the internet (and unset HF_HUB_OFFLINE), or use a local folder.",
        )
    if isinstance(problem, errors.HFValidationError):
        return UsageError(f"{name}: the Hub has no such repository: {reason}.", "Use OWNER/NAME, as in its address.")
    if isinstance(problem, errors.EntryNotFoundError):
        return UsageError(f"{name}: the repository does not have this file.")
    if isinstance(problem, errors.RevisionNotFoundError):
        return UsageError(f"{name}: the repository has no such revision.", "Omit @REVISION to use the newest.")
    refused = isinstance(problem, errors.GatedRepoError) or status in (401, 403)
    if isinstance(problem, errors.RepositoryNotFoundError) and (status == 404 or get_token() is None):
        return UsageError(f"{name}: the Hub has no such repository, or it is private and you have no access.", SIGN_IN)
    if refused:
        who = "your token has no permission for it" if get_token() else "it requires a token, and there is none"
        return EnvironmentProblem(f"{name}: the Hub refused access ({status}): {who}.", SIGN_IN)
    if status is not None:
        return unreachable(f"{name}: the Hub returned an error ({status}).", "Run the command again later.")
    if isinstance(problem, OSError) and problem.filename is not None:  # a full disk, a folder without permission
        return EnvironmentProblem(f"{problem.filename}: {problem.strerror}.", "Set HF_HOME to another folder.")
    return unreachable(
        f"{name}: the Hub cannot be reached ({type(problem).__name__}: {reason[:160]}).",
        "Check the connection, and HF_ENDPOINT if you set it.",
    )

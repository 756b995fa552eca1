"""Networks in folders of config.json and model.safetensors, as the Hugging Face Hub has them: local and its own."""

from __future__ import annotations

from pathlib import Path

from fastcls.errors import FastclsError, OutputError, UsageError, WeightsError
from fastcls.runfolder import schema
from fastcls.settings import shell

HUB, LOCAL = "hf-hub:", "local-dir:"  # what stands before a name, as in timm
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def folder(name: str) -> Path:
    """The folder of `hf-hub:OWNER/NAME[@REVISION]`, fetched unless it is kept, or of `local-dir:PATH`."""
    return fetched(name, CONFIG).parent


def fetched(name: str, file: str) -> Path:
    """A file of it; UsageError where the Hub has none, WeightsError where it is neither kept here nor to be reached."""
    if name.startswith(LOCAL):
        return _inside(shell.path(name.removeprefix(LOCAL))) / file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, _, revision = name.removeprefix(HUB).partition("@")
    kind: type[FastclsError] = WeightsError
    try:
        return Path(hf_hub_download(repository, file, revision=revision or None))
    except LocalEntryNotFoundError:
        problem = f"the Hub cannot be reached, and {file} is not kept on this machine"
        hint = "Connect to the internet (and unset HF_HUB_OFFLINE), or give a folder: local-dir:PATH."
    except EntryNotFoundError:
        kind = UsageError
        problem, hint = f"that repository has no {file}", "Take one of timm's: hf-hub:timm/resnet18.a1_in1k, say."
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        kind = UsageError
        problem, hint = "the Hub has no such repository", "Write hf-hub:OWNER/NAME, as in its address."
    except Exception as other:  # of the client that huggingface_hub uses, which changed before
        problem, hint = f"it could not be downloaded ({type(other).__name__})", "Run the command again."
    raise kind(f"{name}: {problem}.", hint) from None


def architecture(folder: Path) -> str:
    """timm's name of the network in a folder; OutputError where its config.json is not one of timm's."""
    try:
        found = schema.load(folder / CONFIG).get("architecture")
    except (OSError, ValueError) as problem:
        raise OutputError(f"{folder / CONFIG} cannot be read: {problem}.") from None
    if not isinstance(found, str):
        raise OutputError(
            f"{folder / CONFIG} names no architecture of timm's.",
            "Take a repository of timm's: Transformers gives its networks other layers and names.",
        )
    return found


def weights(path: Path) -> Path:
    """The .safetensors file of a local folder, or of the cache folder of a repository."""
    inside = _inside(path)
    found = [inside / WEIGHTS] if (inside / WEIGHTS).is_file() else sorted(inside.glob("*.safetensors"))
    if len(found) != 1:
        raise OutputError(
            f"{path} holds {len(found)} .safetensors files.", f"Give one of them, or a folder with a {WEIGHTS}."
        )
    return found[0]


def _inside(path: Path) -> Path:
    """A folder itself; of the cache of a repository, the snapshot that its main branch names, or the newest."""
    snapshots = path / "snapshots"
    if not snapshots.is_dir():
        return path
    main = path / "refs" / "main"
    if main.is_file() and (named := snapshots / main.read_text().strip()).is_dir():
        return named
    return max(snapshots.iterdir(), key=lambda folder: folder.stat().st_mtime, default=path)


def is_folder(path: Path) -> bool:
    """Whether this is such a folder, and not one of our runs."""
    inside = _inside(path)
    return path.is_dir() and not (path / "run.json").is_file() and any(inside.glob("*.safetensors"))

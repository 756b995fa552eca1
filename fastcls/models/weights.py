"""Files of weights: an earlier run's, any .safetensors file, a folder as the Hugging Face Hub has them. No pickle."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fastcls.errors import OutputError, WeightsError
from fastcls.models import zoo
from fastcls.runfolder import hub, model_files, runs, schema
from fastcls.settings import shell, synonyms
from fastcls.training.checkpoints import load_weights

Stats = tuple[tuple[float, ...], tuple[float, ...]]
HUB, LOCAL = "hf-hub:", "local-dir:"  # what stands before a name, as in timm
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def weights_file(name: str) -> Path:
    """The .safetensors file that `--weights NAME` means, its sum checked if it is a run's.

    NAME is a file, a run, also one of the Hub's (`hf://OWNER/NAME`), a folder as the Hub has them, or a repository
    there, `hf-hub:OWNER/NAME`.
    """
    name = zoo.resolve(name)
    if name.startswith(HUB):
        return fetched(name, WEIGHTS)
    if name.startswith(hub.PREFIX):
        name = str(hub.run(name))
    path = shell.path(name.removeprefix(LOCAL))
    if is_folder(path):
        return weights_in(path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise OutputError(f"--weights {name}: no such file.", "List the runs:  fastcls runs")
        ours = path.name == model_files.WEIGHTS and (path.parent / model_files.RECORD).is_file()
        return model_files.verify(path.parent, path.name) if ours else path
    if path.is_file():
        if path.suffix in synonyms.PICKLES:
            raise OutputError(
                f"--weights {name}: a pickle, which can run code when it is loaded; it was not read.",
                f"If you trust its author, convert it once:  {shell.command('import', name, '--trust-pickle')}",
            )
        raise OutputError(
            f"--weights {name}: only .safetensors files are read (other formats can run code when loaded).",
            "Convert it with safetensors.torch.save_file.",
        )
    file = model_files.verify(runs.find(name), model_files.WEIGHTS)
    if not file.is_file():
        raise OutputError(f"--weights {name}: the run has no model.safetensors, because it did not finish.")
    return file


def preprocessing_of(weights: Path) -> dict[str, Any] | None:
    """The specification that these weights were trained with: of the file's metadata, or of the model.json beside."""
    with opened(weights) as handle:
        text = (handle.metadata() or {}).get("preprocessing")
    if text is not None:
        try:
            spec = json.loads(text)
            schema.check(spec, schema.Preprocessing | None)
        except (ValueError, RecursionError) as problem:
            raise OutputError(f"{weights}: its metadata's preprocessing cannot be read: {problem}.") from None
        if reason := model_files.problem_of(spec):
            raise OutputError(f"{weights} is invalid: {reason}.")
    else:
        beside = weights.parent / model_files.RECORD
        spec = model_files.read(beside.parent).get("preprocessing") if beside.is_file() else None
    return spec


def of_kind(file: Path, name: str, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor of a file with the kind of numbers that `like` has; OutputError where they are none."""
    if tensor.is_floating_point() != like.is_floating_point():
        raise OutputError(f"{file}: {name} is {tensor.dtype} instead of {like.dtype}.")
    tensor = tensor.to(like.dtype)
    if not tensor.isfinite().all():
        raise OutputError(f"{file}: {name} contains NaN or infinite values; this network is broken.")
    return tensor


@contextlib.contextmanager
def opened(file: Path) -> Iterator[Any]:
    """The handle of a .safetensors file, as `safe_open` gives it; OutputError where it is not one."""
    try:
        model_files.refuse_long_header(file)
        with safe_open(file, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as problem:
        raise OutputError(f"{file} is not a readable .safetensors file: {problem}.") from None


def shapes_in(handle: Any) -> dict[str, torch.Size]:
    """The shape of each tensor, none of which is read."""
    return {name: torch.Size(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118


def save(model: nn.Module, file: Path) -> None:
    """Write a network's weights; tensors that share memory are written once each."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    runs.atomic_path(file, lambda temporary: save_file(state, temporary))


def load(model: nn.Module, file: Path) -> None:
    """Load every weight of a network; OutputError where file and network differ."""
    own = model.state_dict()
    with opened(file) as handle:
        shapes = shapes_in(handle)
        differ = sorted(set(shapes) - set(own))
        differ += [name for name, value in own.items() if shapes.get(name) != value.shape]
        if differ:
            raise OutputError(f"{file} does not fit this network: {len(differ)} tensors differ ({some(differ)}).")
        found = {name: of_kind(file, name, handle.get_tensor(name), value) for name, value in own.items()}
        load_weights(model, found)


def some(names: list[str]) -> str:
    """The first of these names, for a message."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


# ------------------------------------------------------------------ folders as the Hugging Face Hub has them


def fetched(name: str, file: str) -> Path:
    """A file of `hf-hub:OWNER/NAME[@REVISION]`, fetched unless it is kept, or of `local-dir:PATH`.

    UsageError where the Hub has none, WeightsError where it is neither kept here nor reached."""
    if name.startswith(LOCAL):
        return _inside(shell.path(name.removeprefix(LOCAL))) / file
    where = hub.parsed(name, HUB)
    with hub.reached(name, WeightsError):
        return hub.download(where.repository, file, where.revision)


def architecture(folder: Path) -> str:
    """timm's name of the network in a folder; OutputError where its config.json is not one of timm's."""
    try:
        found = schema.load(folder / CONFIG).get("architecture")
    except (OSError, ValueError) as problem:
        raise OutputError(f"{folder / CONFIG} cannot be read: {problem}.") from None
    if not isinstance(found, str):
        raise OutputError(
            f"{folder / CONFIG} does not name a timm architecture.",
            "Use a timm repository: networks of Transformers have other layers and names.",
        )
    return found


def weights_in(path: Path) -> Path:
    """The .safetensors file of a local folder, or of the cache folder of a repository."""
    inside = _inside(path)
    found = [inside / WEIGHTS] if (inside / WEIGHTS).is_file() else sorted(inside.glob("*.safetensors"))
    if len(found) != 1:
        raise OutputError(
            f"{path} contains {len(found)} .safetensors files.", f"Pass one of them, or a folder with a {WEIGHTS}."
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

"""fastcls export RUN: the network as a file for another program."""

from __future__ import annotations

from pathlib import Path

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.errors import OutputError, UsageError


@app.command()
@verb
def export(
    run: str = completion.RUN,
    onnx: bool = typer.Option(False, "--onnx", help="model.onnx, any batch size  [default, if nothing is asked for]"),
    safetensors: bool = typer.Option(False, "--safetensors", help="model.safetensors: the weights alone."),
    torch_export: bool = typer.Option(
        False, "--torch-export", help="model.pt2, a torch.export program; needs --trust and the run's images."
    ),
    openvino: bool = typer.Option(
        False, "--openvino", help="model.xml and model.bin; needs pip install 'fastcls[openvino]'."
    ),
    out: str = typer.Option("", "-o", "--out", metavar="DIR", help="Folder of the files  [default: RUN/export]"),
    trust: bool = typer.Option(False, "--trust", help="Run the code of the run's recipe.py, for --torch-export."),
) -> None:
    """Write a run's network as a file for another program.

    \b
    fastcls export last                      model.onnx, in the run's folder export/
    fastcls export last --openvino -o phone  model.xml and model.bin, in phone/

    Class names and preprocessing are in each file's metadata. Every network is run on images of predictions.csv:
    one that differs from the Learner's probabilities by more than 0.001 is not kept. Files that are there already
    are never written over.
    """
    from fastcls.inference import deploy
    from fastcls.runfolder import runs

    folder = runs.find(run)
    asked = {"onnx": onnx, "safetensors": safetensors, "torch-export": torch_export, "openvino": openvino}
    wanted = [kind for kind, is_asked in asked.items() if is_asked] or ["onnx"]
    files = {"onnx": "model.onnx", "safetensors": "model.safetensors", "torch-export": "model.pt2"}
    home = Path(out).expanduser() if out else folder / "export"
    targets = {kind: home / files.get(kind, "model.xml") for kind in wanted}
    _check(folder, wanted, trust)
    _check_free([*targets.values(), *(home / "model.bin" for kind in wanted if kind == "openvino")])
    reference = None if wanted == ["safetensors"] else deploy.reference(folder)
    for kind, target in targets.items():
        if kind == "safetensors":
            deploy.safetensors(folder, target)
            print(f"{target}: the weights, as they are")
            continue
        if kind == "torch-export":
            from fastcls.running.loading import import_fastai

            import_fastai()
            from fastcls.running import torch_export as programs

            difference = programs.write(folder, target, reference)
        else:
            difference = (deploy.onnx if kind == "onnx" else deploy.openvino)(folder, target, reference)
        print(f"{target}: {_verdict(difference, reference)}")


def _check(folder: Path, wanted: list[str], trust: bool) -> None:
    """Refuse, before anything is written, what this run or this installation cannot give."""
    from fastcls.inference import deploy
    from fastcls.inference.predictor import Predictor
    from fastcls.runfolder import recorded, runs

    if "torch-export" in wanted:
        recorded.recipe_file(folder, runs.read_json(folder / "run.json"))
    if "torch-export" in wanted and not trust:
        raise UsageError(
            f"--torch-export builds the network by running the code in {folder / 'recipe.py'}.",
            "Add --trust if you trust it; ONNX needs none of it.",
        )
    if "openvino" in wanted:
        deploy.import_openvino()
    for kind in ("onnx", "openvino"):
        if kind in wanted:
            if not (folder / "model.onnx").is_file():
                raise OutputError(
                    f"--{kind}: {folder} has no model.onnx; its network could not be exported when it was trained.",
                    "Its weights can be:  --safetensors",
                )
            Predictor(folder)  # which refuses a damaged one
    if "safetensors" in wanted:
        if not (folder / "model.safetensors").is_file():
            raise OutputError(f"--safetensors: {folder} has no model.safetensors; it did not finish.")
        with deploy.opened_weights(folder):  # which does too
            pass


def _check_free(targets: list[Path]) -> None:
    """Refuse files that are there, and make their folder."""
    for target in targets:
        if target.exists():
            raise OutputError(f"{target} is there already.", "Remove it, or name another folder with -o.")
    home = targets[0].parent
    try:
        home.mkdir(exist_ok=True)
    except OSError as problem:
        raise OutputError(
            f"-o {home}: this folder cannot be made ({problem.strerror}).", "Name a folder in an existing one."
        ) from None


def _verdict(difference: float | None, reference: object) -> str:
    if difference is None:
        return "not checked, for no image of predictions.csv can be read any more"
    count = len(reference.images)  # type: ignore[attr-defined]
    return f"probabilities of {count} real images within {difference:.1g} of the Learner's"

"""fastcls export RUN: the network as a file for another program."""

from __future__ import annotations

import typer

from fastcls.cli import completion
from fastcls.cli.app import app, chosen, verb


@app.command()
@verb
def export(
    run: str = completion.RUN,
    onnx: bool = typer.Option(
        False, "--onnx", help="model.onnx, from pixels to probabilities  [default, if nothing is asked for]"
    ),
    safetensors: bool = typer.Option(False, "--safetensors", help="model.safetensors: the weights alone."),
    torch_export: bool = typer.Option(
        False, "--torch-export", help="model.pt2, a torch.export program; needs --trust and the run's images."
    ),
    openvino: bool = typer.Option(
        False, "--openvino", help="model.xml and model.bin; needs OpenVINO (pip install openvino)."
    ),
    out: str = typer.Option("", "-o", "--out", metavar="DIR", help="Folder of the files  [default: RUN/export]"),
    trust: bool = typer.Option(False, "--trust", help="Run the code of the run's recipe.py, for --torch-export."),
) -> None:
    """Write a run's network as a file for another program.

    \b
    fastcls export last                      model.onnx, in the run's folder export/
    fastcls export last --openvino -o phone  model.xml and model.bin, in phone/

    model.onnx takes uint8 pixels of any size and gives probabilities; class names and preprocessing are in each
    file's metadata. Every network is run on images of predictions.csv:
    one that differs from the Learner's probabilities by more than 0.001 is not kept. Files that are there already
    are never written over.
    """
    from fastcls import api

    asked = {"onnx": onnx, "safetensors": safetensors, "torch-export": torch_export, "openvino": openvino}
    kinds = [kind for kind, is_asked in asked.items() if is_asked]
    for kind, (file, difference, images) in api.export(chosen(run), *kinds, out=out or None, trust=trust).items():
        print(f"{file}: {_verdict(kind, difference, images)}")


def _verdict(kind: str, difference: float | None, images: int) -> str:
    if kind == "safetensors":
        return "the weights, as they are"
    if difference is None:
        return "not checked, for no image of predictions.csv can be read any more"
    return f"probabilities of {images} real images within {difference:.1g} of the Learner's"

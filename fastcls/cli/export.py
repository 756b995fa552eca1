"""fastcls export RUN: the network as a file for another program."""

from __future__ import annotations

from typing import Any

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import option
from fastcls.cli.guard import chosen


@app.command()
@verb
def export(
    run: str = completion.RUN,
    onnx: bool = option("--onnx", "model.onnx, from pixels to probabilities  [default, if no format is given]"),
    safetensors: bool = option("--safetensors", "model.safetensors: the weights alone."),
    torch_export: bool = option(
        "--torch-export", "model.pt2, a torch.export program; needs --trust and the run's images."
    ),
    openvino: bool = option("--openvino", "model.xml and model.bin; needs OpenVINO (pip install openvino)."),
    int8: bool = option(
        "--int8", "model-int8.onnx: a quarter of the size, faster; reports the cost on validation images."
    ),
    fp16: bool = option("--fp16", "model-fp16.onnx: half the size, for GPUs."),
    out: str = option("-o --out DIR", "Output folder  [default: RUN/export]"),
    trust: bool = option("--trust", "Run the code in the run's recipe.py, for --torch-export."),
) -> None:
    """Write a run's network as a file for another program.

    \b
    fastcls export last                      model.onnx, in the run's folder export/
    fastcls export last --openvino -o phone  model.xml and model.bin, in phone/
    fastcls export last --int8               eight bits, calibrated on training images

    model.onnx takes uint8 pixels of any size and returns probabilities; class names and preprocessing are in each
    file's metadata. Every exported network is verified on images of predictions.csv: one whose probabilities differ
    from the Learner's by more than 0.001 is not written. Existing files are never overwritten.
    """
    from fastcls import api

    asked = {"onnx": onnx, "safetensors": safetensors, "torch-export": torch_export, "openvino": openvino}
    asked |= {"int8": int8, "fp16": fp16}
    kinds = [kind for kind, is_asked in asked.items() if is_asked]
    for kind, done in api.export(chosen(run), *kinds, out=out or None, trust=trust).items():
        print(f"{done.file}: {_verdict(kind, *done[1:])}")


def _verdict(kind: str, difference: float | None, images: int, cost: dict[str, Any] | None) -> str:
    if cost is not None:
        before, after = (cost[name] / cost["n"] for name in ("before", "after"))
        change = f"{100 * cost['difference']:+.1f} points, {100 * cost['low']:+.1f} to {100 * cost['high']:+.1f}"
        sizes = [cost[name] / 1e6 for name in ("bytes_after", "bytes_before")]
        return (
            f"{after:.1%} of {cost['n']:,} {cost['split']} images right, {before:.1%} before ({change}); "
            f"{cost['gain']:.1f} times as fast on this CPU, {sizes[0]:.1f} MB instead of {sizes[1]:.1f}"
        )
    if kind == "safetensors":
        return "the weights, unchanged"
    if difference is None:
        return "not verified, because no image of predictions.csv can be read any more"
    return f"probabilities on {images} images within {difference:.1g} of the Learner's"

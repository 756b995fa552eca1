"""fastcls push RUN OWNER/NAME: a run to the Hugging Face Hub."""

from __future__ import annotations

import typer

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.documents import document
from fastcls.cli.guard import chosen


@app.command()
@verb
def push(
    run: str = completion.RUN,
    repository: str = typer.Argument(metavar="OWNER/NAME", help="The repository; it is made where it is missing."),
    private: bool = typer.Option(False, "--private", help="Make a repository that only you see."),
    report: bool = typer.Option(
        False, "--report", help="Also the report, predictions and splits: they show your images or their names."
    ),
    as_json: bool = JSON,
) -> None:
    """Publish a run on the Hugging Face Hub, with a model card.

    \b
    fastcls push last me/pets --private
    fastcls predict hf://me/pets photos      anywhere

    Sends the weights (safetensors), model.onnx, what was exported, records, metrics, recipe.py and a card that says
    what the report says; of timm's networks a config.json, so that timm.create_model("hf-hub:me/pets") loads it. No
    image is sent, no pickle, and no path of this machine. The token is huggingface_hub's own: `hf auth login`, or
    HF_TOKEN; without one, or where it has no permission, the exit code is 5.
    """
    from fastcls import api

    with document(as_json) as show:
        done = api.push(chosen(run), repository, private=private, report=report)
        print(f"{len(done.files)} files: {', '.join(done.files)}")
        if done.in_timm:
            print(f'timm     timm.create_model("hf-hub:{repository}", pretrained=True)')
        print(f"next     fastcls predict hf://{repository} PHOTOS")
        print(done.url)
        show({"url": done.url, "commit": done.commit, "files": done.files, "timm": done.in_timm})

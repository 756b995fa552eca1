"""fastcls push RUN OWNER/NAME: a run to the Hugging Face Hub."""

from __future__ import annotations

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import argument, option
from fastcls.cli.guard import chosen
from fastcls.cli.output import document


@app.command()
@verb
def push(
    run: str = completion.RUN,
    repository: str = argument("OWNER/NAME", "The repository; it is created if it is missing."),
    private: bool = option("--private", "Create a private repository."),
    report: bool = option(
        "--report", "Also upload the report, predictions and splits, which show your images or their names."
    ),
    as_json: bool = JSON,
) -> None:
    """Publish a run on the Hugging Face Hub, with a model card.

    \b
    fastcls push last me/pets --private
    fastcls predict hf://me/pets photos      anywhere

    It uploads the weights (safetensors), model.onnx, exported files, records, metrics, recipe.py and a model card with
    the results; for timm's networks also a config.json, so that timm.create_model("hf-hub:me/pets") loads them.
    No images, pickles or local paths are uploaded. It uses huggingface_hub's token (`hf auth login` or HF_TOKEN);
    without a token, or without permission, the exit code is 5.
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

"""fastcls recipes: which recipes there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastcls.cli.app import JSON, app, verb
from fastcls.cli.output import document, table

if TYPE_CHECKING:
    from fastcls.settings.sources import RecipeSource


@app.command()
@verb
def recipes(as_json: bool = JSON) -> None:
    """List the recipes with their data, network, measured result and requirements."""
    from fastcls.settings import sources

    every = [sources.find(name) for name in sources.available()]
    if as_json:
        with document(as_json) as show:
            show([_record(source) for source in every])
        return
    rows = []
    for source in every:
        fields = [source.fields.get(name, "") for name in ("Data", "Network")]
        rows.append([source.name, *fields, source.claim, source.fields.get("Needs", "")])
    print(table(["recipe", "dataset", "network", "claim", "needs"], rows))
    print("\nRun one:  fastcls recipe digits-cnn      Its knobs:  fastcls recipe digits-cnn --help")


def _record(source: RecipeSource) -> dict[str, Any]:
    from fastcls.settings.knobs import REQUIRED

    knobs = [
        {
            "name": knob.name,
            "stage": knob.stage,
            "kind": knob.kind,
            "default": None if knob.default is REQUIRED else knob.default,
            "required": knob.default is REQUIRED,
            "choices": knob.choices,
            "help": knob.help,
        }
        for knob in source.knobs
    ]
    fields = {name.lower(): text for name, text in source.fields.items()}
    return {"name": source.name, "title": source.title, **fields, "knobs": knobs, "file": source.path}

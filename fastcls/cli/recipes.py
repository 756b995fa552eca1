"""fastcls recipes: which recipes there are."""

from __future__ import annotations

from fastcls.cli.app import app, verb
from fastcls.cli.tables import table


@app.command()
@verb
def recipes() -> None:
    """List the recipes: data, network, measured result, needs."""
    from fastcls.settings import sources

    rows = []
    for source in map(sources.find, sources.available()):
        fields = [source.fields.get(name, "") for name in ("Data", "Network")]
        rows.append([source.name, *fields, source.claim, source.fields.get("Needs", "")])
    print(table(["recipe", "dataset", "network", "claim", "needs"], rows))
    print("\nRun one:  fastcls recipe digits-cnn      Its knobs:  fastcls recipe digits-cnn --help")

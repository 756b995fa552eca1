"""fastcls cache: which datasets lie decoded on the disk."""

from __future__ import annotations

import typer

from fastcls.cli.app import app, verb
from fastcls.cli.tables import table
from fastcls.errors import UsageError, did_you_mean


@app.command()
@verb
def cache(
    clear: list[str] = typer.Option([], "--clear", metavar="NAME", help="Remove this store; 'all' removes every one."),
) -> None:
    """List the stores of decoded images that runs share, or remove them. Any run builds again what it needs."""
    import time

    from fastcls import cache as stores

    found = stores.listing()
    names = [store["name"] for store in found]
    if clear:
        for name in clear:
            if name != "all" and name not in names:
                raise UsageError(
                    f"--clear {name}: there is no such store{did_you_mean(name, names)}",
                    "`fastcls cache` lists them; --clear all removes every one.",
                )
        freed = stores.clear(names if "all" in clear else clear)
        print(f"{freed / stores.GB:.2f} GB freed.")
        return
    if not found:
        print(f"No decoded images in {stores.folder_of_stores()}. Any run puts its own there.")
        return
    rows = []
    for store in sorted(found, key=lambda store: -store["used"]):
        how = store["how"]
        size = how.get("resize") or how.get("size")
        done = (
            f"whole, short side ≤ {how['short']}" if "short" in how else f"{size[0]} × {size[1]}" if size else "as is"
        )
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store["used"]))
        rows.append(
            [store["name"], store["root"], f"{store['images']:,}", done, f"{store['bytes'] / 1e6:,.1f} MB", used]
        )
    print(table(["name", "images of", "images", "size", "on disk", "last used"], rows))
    total = sum(store["bytes"] for store in found)
    print(
        f"{total / stores.GB:.2f} GB in {stores.folder_of_stores()}; `fastcls cache --clear NAME` or all removes them."
    )

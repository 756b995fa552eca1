"""fastcls cache: which datasets lie decoded on the disk, what was measured of images, and shards that were fetched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastcls.cli import completion
from fastcls.cli.app import JSON, app, verb
from fastcls.cli.completion import option
from fastcls.cli.output import document, table
from fastcls.errors import UsageError, did_you_mean

MEASUREMENTS, PACKS = "measurements", "packs"


@app.command()
@verb
def cache(
    clear: list[str] = option(
        "--clear NAME", "Remove this cache; 'all' removes everything.", [], offers=completion.stores
    ),
    as_json: bool = JSON,
) -> None:
    """List or remove the cached images that runs share.

    \b
    fastcls cache                            list the caches and their sizes
    fastcls cache --clear all

    Nothing is lost: runs and checks rebuild what they need.
    """
    import time

    from fastcls.datasets import shards
    from fastcls.images import cache as stores
    from fastcls.images import measurements

    found = stores.listing()
    names = [store["name"] for store in found] + [MEASUREMENTS, PACKS]
    if clear:
        for name in clear:
            if name != "all" and name not in names:
                raise UsageError(
                    f"--clear {name}: no such cache{did_you_mean(name, names)}",
                    "`fastcls cache` lists them; --clear all removes everything.",
                )
        chosen = names if "all" in clear else clear
        freed = stores.clear(chosen) + (measurements.clear() if MEASUREMENTS in chosen else 0)
        freed += shards.clear() if PACKS in chosen else 0
        print(f"{_bytes(freed)} freed.")
        return
    if as_json:
        with document(as_json) as show:
            show(
                {
                    "folder": stores.folder_of_stores(),
                    "stores": found,
                    "measurements_bytes": measurements.size(),
                    "packs_bytes": shards.size(),
                }
            )
        return
    if measured := measurements.size():
        print(f"{_bytes(measured)} of image measurements; --clear {MEASUREMENTS} removes them.")
    if packed := shards.size():
        print(f"{_bytes(packed)} of indexes and shards of packed images; --clear {PACKS} removes them.")
    if not found:
        print(f"No decoded images in {stores.folder_of_stores()}. Runs cache their images there.")
        return
    rows = []
    for store in sorted(found, key=lambda store: -store["used"]):
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(store["used"]))
        done, size = _done(store["how"]), _bytes(store["bytes"])
        rows.append([store["name"], store["root"], f"{store['images']:,}", done, size, used])
    print(table(["name", "images of", "images", "kept", "on disk", "last used"], rows))
    total = _bytes(sum(store["bytes"] for store in found))
    print(f"{total} in {stores.folder_of_stores()}; `fastcls cache --clear NAME` removes one, --clear all everything.")


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _done(how: Mapping[str, Any]) -> str:
    """What was done to the images, in words."""
    if "size" not in how:  # "short" is of earlier versions
        done = "whole, reduced to cover {} × {}".format(*how.get("cover", [how.get("short")] * 2))
    elif how["size"]:
        done = f"{how['method']} to {how['size'][0]} × {how['size'][1]}"
    else:
        done = "as is"
    return done + (", grey" if how["mode"] == "L" else "")

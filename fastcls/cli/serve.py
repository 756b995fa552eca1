"""fastcls serve RUN: a local page that says what the network of a run sees in a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastcls.cli import completion
from fastcls.cli.app import app, verb
from fastcls.cli.completion import option
from fastcls.cli.guard import chosen
from fastcls.errors import UsageError
from fastcls.machine import stop
from fastcls.runfolder.text import visible

if TYPE_CHECKING:
    from fastcls.inference.explain import Explainer

PORT = 8642


@app.command()
@verb
def serve(
    run: str = completion.RUN,
    host: str = option("--host HOST", "Address to listen on; any other address lets other machines in.", "127.0.0.1"),
    port: int = option("--port PORT", "Port to listen on; 0 chooses a free one.", PORT, min=0, max=65535),
    open_: bool = option("--open/--no-open", "Open the page in the browser."),
    max_mb: float = option("--max-mb MB", "Largest image, in megabytes.", 20.0),
    threshold: float = option(
        "--threshold T", "Initial value of the page's slider: predictions below are 'unsure'.", 0.5
    ),
    split: str = option("--split valid|test", "Split whose mistakes are shown.", "valid"),
) -> None:
    """Try a run in the browser, on a local page that accepts images.

    \b
    fastcls serve last --open

    It shows probabilities, Grad-CAM and the run's mistakes that are nearest to the image; programs get JSON from
    POST /predict, which /docs describes. Needs Starlette, uvicorn and python-multipart (else exit code 5). Images
    are not stored, and nothing leaves this machine. Ctrl-C stops it, with exit code 130.
    """

    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold:g}: expected a probability from 0 to 1.")
    if not 0 < max_mb <= 1000:
        raise UsageError(f"--max-mb {max_mb:g}: expected a number above 0, up to 1000.")
    folder = chosen(run)
    from fastcls.plugins.serve.server import listen, server, url  # says how to install what it needs

    with listen(host, port) as listening:
        from fastcls.plugins.serve.app import LOCAL, application
        from fastcls.plugins.serve.site import Site

        calibrated, explainer = _explainer(folder)
        site = Site(folder, explainer, split, calibrated, threshold, int(max_mb * 1e6))
        ready = server(application(site, host))
        print(f"{visible(folder)}: {url(listening)}    Ctrl-C stops it", flush=True)
        if host not in LOCAL:
            print("Anyone who can reach this machine can use the page, without a password.", flush=True)
        if open_:
            import webbrowser

            webbrowser.open(url(listening))
        with stop.listening(), site.looking():  # uvicorn hands the signal on when it has ended
            ready.run(sockets=[listening])


def _explainer(folder: Path) -> tuple[bool, Explainer]:
    """Whether the run was calibrated, and its network."""
    from fastcls.inference.explain import Explainer
    from fastcls.inference.predictor import temperature_of
    from fastcls.runfolder import runs

    calibrated = runs.read_json(folder / "model.json").get("temperature") is not None
    return calibrated, Explainer(folder, temperature_of(folder) if calibrated else 1)

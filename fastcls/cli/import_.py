"""fastcls import FILE: weights out of a pickle, once."""

from __future__ import annotations

from pathlib import Path

import typer

from fastcls import log
from fastcls.cli.app import app, verb
from fastcls.errors import OutputError, UsageError
from fastcls.settings import shell

SHOWN = 6  # names that a pickle asks for


@app.command(name="import")
@verb
def import_(
    file: str = typer.Argument(metavar="FILE", help="A .pkl of learn.export, or a .pth of learn.save or torch.save."),
    out: str = typer.Option(
        "", "-o", "--out", metavar="FILE", help="File to write  [default: FILE with the suffix .safetensors]"
    ),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Read it, although a pickle can run any code of its maker's."
    ),
) -> None:
    """Convert weights out of a pickle into a .safetensors file.

    \b
    fastcls import export.pkl                says what the pickle would do, and reads nothing
    fastcls import export.pkl --trust-pickle

    Recipes take the file as --weights. Weights alone are read by torch's restricted unpickler. A whole Learner or
    network is unpickled in full, which runs what is in the file. Nothing else of fastcls reads pickles.
    """
    source = shell.path(file)
    if not source.is_file():
        raise OutputError(f"{file}: there is no such file.", "Name a .pkl or .pth file.")
    target = shell.path(out) if out else source.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise UsageError(f"-o {out}: the weights go into a .safetensors file.", "Name one that ends so.")
    if target.exists():
        raise OutputError(f"{target} is there already.", "Remove it, or name another file with -o.")
    if not trust_pickle:
        raise UsageError(
            f"{file} is a pickle: to read it is to run what its maker put into it. It was not read. {_asks(source)}",
            f"If you trust who made it:  {shell.command('import', file, '--trust-pickle')}",
        )
    log.status("loading torch and fastai …")
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastcls.models import foreign

    found = foreign.read(source)
    foreign.write(found, target)
    if found.in_full:
        print("note: it holds more than tensors, so it was unpickled in full, with what code is in it")
    numbers = sum(tensor.numel() for tensor in found.tensors.values())
    print(f"{target}: {found.kind}, {len(found.tensors):,} tensors of {numbers:,} numbers")
    print(
        f"next     {shell.command('recipe', 'NAME', '--weights', target)}   with the --arch that they were trained with"
    )


def _asks(source: Path) -> str:
    """What the pickle would call, without its being called."""
    from fastcls.models.pickles import calls_of

    names = calls_of(source)
    if not names:
        return "It names nothing but tensors."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"It asks for {', '.join(names[:SHOWN])}{more}."

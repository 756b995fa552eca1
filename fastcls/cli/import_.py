"""fastcls import FILE: weights out of a pickle, once."""

from __future__ import annotations

from pathlib import Path

from fastcls import log
from fastcls.cli.app import app, verb
from fastcls.cli.completion import argument, option
from fastcls.errors import OutputError, UsageError
from fastcls.settings import shell

SHOWN = 6  # names that a pickle asks for


@app.command(name="import")
@verb
def import_(
    file: str = argument("FILE", "A .pkl of learn.export, or a .pth of learn.save or torch.save."),
    out: str = option("-o --out FILE", "File to write  [default: FILE with the suffix .safetensors]"),
    trust_pickle: bool = option("--trust-pickle", "Read it, although a pickle can run arbitrary code of its author."),
) -> None:
    """Convert weights out of a pickle into a .safetensors file.

    \b
    fastcls import export.pkl                show what the pickle would import, without reading it
    fastcls import export.pkl --trust-pickle

    Pass the file to recipes as --weights. Weights alone are read by torch's restricted unpickler. A whole Learner or
    network is fully unpickled, which runs the code in the file. No other part of fastcls reads pickles.
    """
    from fastcls.models.pickles import is_pickle

    source = shell.path(file)
    if not source.is_file():
        what = "is a folder" if source.is_dir() else "no such file"
        raise OutputError(f"{file}: {what}.", "Give a .pkl or .pth file.")
    if source.suffix == ".safetensors":
        raise UsageError(f"{file} is a .safetensors file already.", "Pass it to recipes as --weights.")
    if not (trust_pickle or is_pickle(source)):
        raise OutputError(
            f"{file} is not a pickle, or a damaged one.", "Give a .pkl of learn.export, or a .pth of torch.save."
        )
    target = shell.path(out) if out else source.with_suffix(".safetensors")
    if target.suffix != ".safetensors":
        raise UsageError(f"-o {out}: not a .safetensors file.", "Choose a name that ends in .safetensors.")
    if target.exists():
        raise OutputError(f"{target} exists already.", "Remove it, or choose another file with -o.")
    if not trust_pickle:
        raise UsageError(
            f"{file} is a pickle, and reading it can run code of its author. It was not read. {_asks(source)}",
            f"If you trust its author:  {shell.command('import', file, '--trust-pickle')}",
        )
    log.status("loading torch and fastai …")
    from fastcls.running.loading import import_fastai

    import_fastai()
    from fastcls.models import foreign

    found = foreign.read(source)
    foreign.write(found, target)
    if found.in_full:
        print("note: it contains more than tensors, so it was fully unpickled, including any code in it")
    numbers = sum(tensor.numel() for tensor in found.tensors.values())
    print(f"{target}: {found.kind}, {len(found.tensors):,} tensors of {numbers:,} numbers")
    print(f"next     {shell.command('recipe', 'NAME', '--weights', target)}   with the --arch of these weights")


def _asks(source: Path) -> str:
    """What the pickle would call, without its being called."""
    from fastcls.models.pickles import calls_of

    asked = calls_of(source)
    names = asked.names
    if not names:
        return "It contains only tensors." if asked.whole else "What it imports could not be read."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    rest = "" if asked.whole else "; the rest could not be read"
    return f"It imports {', '.join(names[:SHOWN])}{more}{rest}."

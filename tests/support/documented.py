"""What test_docs.py knows of the documentation: its blocks, what of them is not run or is run shorter, and why."""

from __future__ import annotations

import functools
import re
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT
from typer.main import get_command

from fastcls.cli.verbs import app
from fastcls.cli.vocabulary import VERBS
from fastcls.cli.words import translated
from fastcls.settings import sources

# What no page's command does here, by how it begins. What follows `-m fastcls` in it is tried with --dry-run.
NOT_RUN = {
    "python3 -m venv": "tests/project/test_package.py installs the wheel",
    ". .venv/bin/activate": "the same",
    "pip install": "the same; nothing is installed while tests run",
    "pytest": "this is pytest",
    "python -m benchmarks": "takes minutes and a quiet machine; its options are looked up",
    "scripts/check": "CI runs it after the tests",
    "tensorboard": "serves until Ctrl-C; test_tracking.py reads what it would show",
    "mlflow": "the same",
    "docker": "no engine runs here; test_container.py does the steps of the file",
    "hf auth": "signs in; the stand-in for the Hub has a token",
    "curl": "asks a server that runs until Ctrl-C; test_serve.py asks one",
    "ffmpeg": "another program, and a video that is not here",
    "torchrun": "several machines or GPUs; test_scaling.py starts torchrun on one without",
    "accelerate": "several GPUs; test_scaling.py starts it without",
}


# Words that follow those of the page, where all that it asks for would take long or is not here; `code` is then what
# the command ends with. Of several patterns that match, all count.
@dataclass(frozen=True)
class More:
    """pattern: of the words behind `fastcls`. code: what it ends with. pages: those that it is for, if not for all."""

    pattern: str
    words: str
    why: str
    code: int = 0
    pages: tuple[str, ...] = ()


TRAINS = (
    r"^(?:recipe|compare|search|lr-find) "
    r"(?!.*--(?:help|copy|show|dry-run|gpus|processes|storage|trials)\b)(?!\S*runs/|a b )"
)
PHOTOGRAPHS = r"(?:folder|pets-resnet50|birds-resnet50|imagenette-\S+|cifar10-resnet18|recipes/\S+)(?= |$)"
MORE = [
    More(TRAINS + r"(?!.*--time)(?!.*epochs[ =](?:auto|\d+,))", "--epochs 1", "not the minutes of a training"),
    More(r"^recipe .*--time ", "--dry-run", "how much it trains depends on the machine"),
    More(TRAINS + r"(?!.*--precision)", "--precision fp32", "the same on every machine"),
    More(TRAINS + PHOTOGRAPHS, "--size 32 --bs 8", "photographs as small as digits, and few"),
    More(
        TRAINS + PHOTOGRAPHS + r"(?!.*(?:arch|unfreeze)[ =])(?!.*xresnet)",
        "--arch timm/test_resnet",
        "a network of 0.4 M parameters in place of 25 M; --dry-run has the large ones",
    ),
    More(TRAINS + "(?:cifar|.*xresnet)", "--bs 20", "few images"),
    More(TRAINS + r"(?:digits-cnn|\./)", "--limit 20", "the same"),
    More(r"^lr-find ", "--steps 40", "few"),
    More(r"^compare .*--folds", "--folds 2", "test_folds.py has more"),
    More(r"^compare .*--seeds", "--seeds 1", "test_compare.py has several"),
    More(r"^recipe .*--processes", "--dry-run", "test_scaling.py trains so"),
    More(r"^recipe .*--gpus", "--dry-run", "there are not so many GPUs", code=5),
    More(r"^resume .*--gpus", "", "the run was trained on a CPU", code=2),
    More(r"^recipe .*--path /data/", "", "no images lie there", code=3),
    More(r"^search .*(?:--trials|--storage)", "--dry-run", "test_search.py searches; these are ResNets"),
    More(r"^check .*--suspects", "--arch timm/test_resnet --size 32", "the same network"),
    More(r"^doctor$", "--quick", "test_doctor.py has the rest"),
    More(r"^serve ", "--port 0", "the port may be taken"),
    More(
        r"^(?:check|recipe folder --path) hf://datasets/",
        "",
        "the stand-in has no such dataset; test_hub.py has",
        code=2,
    ),
]
KIN = "another of its kind trains, on a page or in a test of its own"  # of what is only tried, to keep all of it short
MORE += [
    More(f"^{words}$", "--dry-run", KIN)
    for words in (
        r"compare folder .*--vary balanced.*",
        r"recipe folder .*--group.*",
        r"compare folder .*--vary policy.*",
        r"compare \./mine.py .*",
        r"compare pets-resnet50 .*",
        r"compare cifar.*",
        r"compare digits-cnn (?:--seeds 5|--one-at-a-time|--vary filters=8,16\S* --seeds 3|--vary lr).*",
        r"recipe cifar10-cnn --limit 100 .*",
        r"recipe cifar10-cnn5(?: --precision fp32.*)?",
        r"recipe cifar10-speedrun .*",
        r"recipe \./mine\.py .*--limit 50",
        r"recipe recipes/\S+ .*--limit 20",
        r"recipe folder .*--weights model\.safetensors",
        r"recipe digits-cnn --auto-batch.*",
        r"recipe digits-cnn --track mlflow",
        r"recipe .*--epochs auto.*",
        r"recipe pets-resnet50 --tune head",
    )
]
DONE_BEFORE = ("README", "cleaning", "own_folder")
MORE.append(More("^recipe folder --path photos$", "--dry-run", "an earlier run of it is there", pages=DONE_BEFORE))

# Pages whose runs predict nothing
NO_NETWORK = {
    "cleaning",
    "command",
    "reproducing",
    "resuming",
    "tracking",
    "training",
}

# What of a page's own words would take long: what stands there, what is run
SHORTER = {
    "get_learner(size=128)": 'get_learner(size=64, arch="squeezenet1_1", bs=8)',
    "learn.lr_find()": "learn.lr_find(num_it=20)",
    "fine_tune(3, 2e-3)": "fine_tune(1, 2e-3)",
    "epochs=3, seed=1)": "epochs=1, seed=1)",
    "item_tfms=Resize(224)": "item_tfms=Resize(32)",
    "accuracy, resnet18, vision": "accuracy, squeezenet1_1 as resnet18, vision",
    "learn.fine_tune(4)": "learn.fine_tune(1)",
    "seeds=3)": "seeds=1, epochs=1, limit=20)",
    "'timm/convnext*'": "'timm/convnext_atto*'",
    "for seed in 1 2 3;": "for seed in 1;",
    "[0, 0.3]": "[0.3]",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, the line it begins at; its title, where it is a file's name."""

    kind: str
    text: str
    line: int
    file: str = ""


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, those within lists too."""
    text = page.read_text(encoding="utf-8")
    fence = re.compile(r'^( *)```(\S*)(?: title="([^"]+)")?[^\n]*\n(.*?)^\1```$', re.S | re.M)
    found = ((m, text.count("\n", 0, m.start()) + 2) for m in fence.finditer(text))
    return [Block(m[2], textwrap.dedent(m[4]), line, m[3] or "") for m, line in found]


def shorter(text: str) -> str:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def declared(words: list[str]) -> str | None:
    """The reason why a command that is not ours does not run."""
    line = " ".join(words)
    return next((why for begin, why in NOT_RUN.items() if re.match(rf"{re.escape(begin)}(?![\w-])", line)), None)


def more(words: list[str], page: str) -> tuple[list[str], int]:
    """What is added to the words of a `fastcls` command, and the exit code that it then has."""
    line = " ".join(words)
    found = [one for one in MORE if page in (one.pages or (page,)) and re.search(one.pattern, line)]
    return [word for one in found for word in one.words.split()], max((one.code for one in found), default=0)


def commands(text: str) -> list[list[str]]:
    """The words of every command of a bash block, as far as they can be shown without running it."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if token.strip("&|;"):
                words += [token] if words or not re.fullmatch(r"\w+=.*", token) else []
            elif words:
                found.append(words)
                words = []
    return found


@functools.cache
def knob_flags(recipe: str) -> set[str]:
    return {knob.flag for knob in sources.find(recipe).knobs}


def wrong(span: str) -> str:
    """What does not exist of a command within a sentence, which may leave out or shorten what it needs; else ''."""
    program, *words = shlex.split(span.replace("…", " "))
    if program == "fastcls":
        words = translated(words, get_command(app).commands)[0] if words and words[0] in VERBS else words
    flags = {word.partition("=")[0] for word in words if word.startswith("--")}
    if program == "pytest":
        gone = [word for word in words if word.startswith("tests/") and not (ROOT / word.partition("::")[0]).is_file()]
    elif program == "fastcls":
        verbs = get_command(app).commands
        if not words or words[0] not in verbs:
            return "" if not words or words[0].startswith("-") or words[0].isupper() else f"{span}: no such verb"
        verb = verbs[words[0]]
        known = {"--help", *(flag for option in verb.params for flag in (*option.opts, *option.secondary_opts))}
        if verb.context_settings.get("ignore_unknown_options"):
            named = words[1:2] if {*words[1:2]} & {*sources.available()} else sources.available()
            knobs = set().union(*map(knob_flags, named))
            known |= knobs | {f"--no-{flag[2:]}" for flag in knobs}
        gone = sorted(flags - known)
    else:
        file = program if program != "python" else words[1].replace(".", "/") + ".py"
        if "NAME" in file or not (ROOT / file.partition("/")[0]).is_dir():
            return ""
        files = [ROOT / file, *([ROOT / "benchmarks" / "common.py"] if program == "python" else [])]
        source = "".join(one.read_text(encoding="utf-8") for one in files if one.is_file())
        gone = [] if (ROOT / file).is_file() else [file]
        gone += sorted(flag for flag in flags if f'"{flag}"' not in source and f"{flag[2:]}=" not in source)
    return f"{span}: {', '.join(gone)}" if gone else ""

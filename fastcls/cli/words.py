"""Words that users of other tools type: taken where they mean the same here, else answered with what does."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from fastcls.cli.streams import refusal
from fastcls.errors import FastclsError, UsageError, did_you_mean, nearest
from fastcls.log import logger
from fastcls.settings import shell, synonyms

if TYPE_CHECKING:
    from fastcls.settings.knobs import Knob

VERBS = {
    "train": "recipe",
    "fit": "recipe",
    "infer": "predict",
    "inference": "predict",
    "val": "evaluate",
    "validate": "evaluate",
    "finetune": "recipe",
    "fine-tune": "recipe",
    "fit-one-cycle": "recipe",
    "fit-flat-cos": "recipe",
    "train-image-classification": "recipe",
    "run-image-classification": "recipe",
    "predict-image-classification": "predict",
    "onnx-export": "export",
    "interpret": "report",
    "plot-top-losses": "report",
    "top-losses": "report",
    "plot-confusion-matrix": "report",
    "show-batch": "check",
    "score": "evaluate",
    "get-preds": "predict",
    "predict-proba": "predict --probabilities",
    "embed": "predict --features",
    "cross-validate": "compare --folds 5",
    "cross-val-score": "compare --folds 5",
    "cross-val-predict": "compare --folds 5",
    "grid-search": "compare",
    "leaderboard": "runs",
    "checks": "doctor",
    "eval": "evaluate",
    "test": "evaluate",
    "tune": "search",
    "hpo": "search",
    "list": "recipes",
    "list-models": "models",
    "ls": "runs",
    "ui": "serve",
    "gui": "serve",
}
WITH_RECIPE = ("recipe", "compare", "search", "lr-find")
# what other tools name by a flag and we by its place: of each place the names, the one to believe first
RUN = "run checkpoint ckpt ckpt-path weights model-path model model-name-or-path"
IMAGES = "source input images data data-dir data-path data-root path"
PLACES = {
    verb: [names.split() for names in places]
    for verb, places in {
        "predict": (RUN, IMAGES),
        "evaluate": (RUN, IMAGES),
        "export": (RUN,),
        "report": (RUN,),
        "resume": (f"resume resume-from-checkpoint {RUN}",),
        "serve": (RUN,),
        "push": (RUN, "repo-id hub-model-id repository"),
        "check": (IMAGES,),
        "pack": (IMAGES, "destination out output output-dir"),
        "import": (f"file {RUN}",),
        "models": ("pattern filter name",),
    }.items()
}
OTHERS = {  # of verbs without a recipe
    "predict": {"output": "out", "output-dir": "out", "output-file": "out", "conf": "threshold", "topk": "top-k"}
    | {"augment": "tta", "proba": "probabilities", "predict-proba": "probabilities"},
    "export": {"output": "out", "output-dir": "out", "outdir": "out", "half": "fp16"},
    "evaluate": {"output": "out", "output-dir": "out", "data-csv": "labels", "results-dir": "out"},
}
# switches, and the words that do the same; nothing where it is so anyway
SWITCHES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        "amp pretrained do-train do-eval plots deterministic load-best-model-at-end cos-lr save val stratify shuffle "
        "pin-mem pin-memory normalize overlap-mask save-hyperparameters enable-checkpointing logger show".split(),
        (),
    ),
    "no-pretrained": ("--weights", "none"),
    "fp16": ("--precision", "fp16"),
    "half": ("--precision", "fp16"),
    "bf16": ("--precision", "bf16"),
    "no-amp": ("--precision", "fp32"),
    "torchcompile": ("--compile", "default"),
    "torch-compile": ("--compile", "default"),
    "no-cuda": ("--device", "cpu"),
    "use-cpu": ("--device", "cpu"),
    "log-wandb": ("--track", "wandb"),
    "wandb": ("--track", "wandb"),
    "tensorboard": ("--track", "tensorboard"),
    "early-stopping": ("--patience", "5"),
}
OFF = {  # a switch that is given as false
    "amp": ("--precision", "fp32"),
    "pretrained": ("--weights", "none"),
    "load-best-model-at-end": ("--keep", "last"),
}
ALWAYS = ("val", "shuffle", "normalize", "stratify", "deterministic", "cos-lr")  # which cannot be turned off
# what is off here: to give it as false, or as 0, changes nothing
NEVER = (
    "rect profile single-cls push-to-hub gradient-checkpointing grad-checkpointing trust-remote-code fast-dev-run sync-bn "
    "distributed freeze model-ema cutmix mosaic shear perspective copy-paste flipud vflip aa auto-augment swa "
    "cooldown-epochs label-smoothing dropout drop overfit-batches ignore-mismatched-sizes use-auth-token"
).split()
VALUES = {  # of ours by those of others, in small letters; nothing where it is so anyway
    "precision": dict.fromkeys(("16", "16-mixed", "16-true", "float16", "half"), "fp16")
    | dict.fromkeys(("bf16-mixed", "bf16-true", "bfloat16"), "bf16")
    | dict.fromkeys(("32", "32-true", "float32"), "fp32"),
    "device": {"gpu": "cuda"},
    "resume": {"true": "auto", "": "auto"},
    "compile": {"true": "default", "false": "off"},
    "opt": dict.fromkeys(("adamw-torch", "adamw_torch", "adamw_torch_fused", "adamw_hf"), "adamw") | {"momentum": "sgd"},
    "weights": {"true": "imagenet", "default": "imagenet", "false": "none"},
    "track": {"none": "", "false": ""},
    "gpus": {"1": ""},
    "best-by": dict.fromkeys(("acc", "acc1", "top1", "val_acc", "val_accuracy", "eval_accuracy"), "accuracy")
    | dict.fromkeys(("loss", "val_loss", "eval_loss"), "valid_loss")
    | dict.fromkeys(("macro_f1", "f1_macro", "eval_f1"), "f1"),
}
OTHER_WORDS = {  # what is another option here, by option and value
    ("gpus", "0"): "--device cpu",
    ("bs", "-1"): "--auto-batch",
    ("bs", "auto"): "--auto-batch",
}
NO_VERBS = {
    "summary": "fastcls recipe NAME --dry-run builds the network and prints what it costs.",
    "pretrain": "--weights takes what others have trained:  fastcls recipe folder --path photos --weights FILE",
    "benchmark": "fastcls export RUN --int8 --fp16 measures a network's speed, size and accuracy.",
    "settings": "fastcls recipe NAME --print-config prints every knob and option.",
    **dict.fromkeys(
        ("detect", "segment", "pose", "obb", "track"),
        "fastcls classifies whole images:  fastcls predict RUN IMAGES",
    ),
}
# what does the work of a setting that others have: of training, then of verbs that read a run
ADVICE = {
    "The classes are counted from the images.": "num-classes nc num-labels n-classes classes",
    "--set ps=0.1 is dropout before the last layer, where the recipe has no --dropout.": "dropout drop drop-rate",
    "--class-weights weighs rare classes more, where the recipe has it.": "class-weight pos-weight",
    "lr-find chooses the rates and the steps itself.": "num-it start-lr end-lr stop-div num-training",
    "The centre of the whole image is evaluated, at --size.": "val-resize-size val-crop-size test-input-size crop-size",
    "--erase 0.25 erases a random rectangle, where the recipe has --erase.": "remode recount resplit reprob",
    "The network is the recipe's:  fastcls recipe NAME --help": "hidden-layer-sizes layers activation heads",
    "--tune head trains the head alone, --tune probe solves it on frozen features; full does that first.": "freeze "
    "freeze-epochs freeze-backbone freeze-encoder",
    "--arch small, base or large chooses the network, --time 20m the length of the training.": "presets",
    "fastcls search RECIPE --space KNOB=VALUES tries settings.": "hyperparameter-tune-kwargs num-trials n-trials",
    "Each setting is an option:  --lr 1e-3 --epochs 5 ; fastcls search tries several.": "hyperparameters overrides "
    "model-args model-kwargs trainer-args transform-args optimizer-args",
    "The schedule is one cycle, with a warm-up; --set pct_start=0.3 is its share.": "sched scheduler lr-scheduler "
    "lr-scheduler-type warmup-epochs warmup-ratio warmup-steps min-lr lrf lr-min lr-step-size lr-gamma decay-rate "
    "decay-epochs lr-warmup-epochs lr-warmup-method lr-warmup-decay warmup-lr cooldown-epochs lr-schedule pct-start div "
    "div-final",
    "Decoded images are cached on disk; --cache-gb N limits them.": "cache cache-images cache-dataset in-memory",
    "--checkpoint-minutes N; the end of an epoch is always saved.": "save-period save-steps save-every checkpoint-hist "
    "every-n-epochs save-checkpoint-args recovery-interval",
    "Every epoch is evaluated and saved, and the weights of the best one are kept.": "evaluation-strategy "
    "eval-strategy eval-steps save-strategy save-total-limit check-val-every-n-epoch val-check-interval save-best "
    "checkpoint-callback enable-checkpointing save-top-k eval-interval val-interval log-every-n-steps",
    "--epochs N or --time 20m; --limit N takes at most N images a class.": "max-steps num-steps steps max-train-steps "
    "limit-steps",
    "--path DIR names the images; a recipe has its own dataset.": "dataset dataset-name data-name dataset-config-name",
    "--limit N takes at most N images a class, in each split.": "max-train-samples max-eval-samples "
    "max-predict-samples num-samples fraction limit-train-batches limit-val-batches overfit-batches fast-dev-run "
    "subset subsample max-samples",
    "--gpus N trains on N GPUs of this machine.": "strategy distributed world-size dist-url dist-backend num-nodes "
    "sync-bn local-rank",
    "The recipe has no --wd; --set wd=0.05 is weight decay there.": "weight-decay wd alpha",
    "fastcls compare RECIPE --folds 5 holds out each image once.": "cv num-bag-folds n-folds k-fold folds n-splits kfold",
    "The folder of --path holds train/ and valid/, or the table of --labels a column split.": "val val-dir "
    "validation-dir eval-data train-split valid-dir val-data tuning-data valid-data test-data validation-file val-csv "
    "is-valid valid-col split-col valid-name valid test-dir",
    "--out FOLDER names the run's folder.": "project name experiment run-name exp-name experiment-name",
    "--loss label-smoothing, where the recipe has --loss.": "label-smoothing label-smoothing-factor smoothing eps",
    "--loss focal, asymmetric or another, where the recipe has --loss.": "loss loss-func loss-fn criterion bce-loss",
    "--policy rand or trivial, where the recipe has --policy.": "aa auto-augment randaugment policy ra-magnitude "
    "augmix-severity trivial-augment augmentation augment aug-preset",
    "--jitter 0.2 changes brightness, contrast and colour, where the recipe has --jitter.": "hsv-h hsv-s hsv-v "
    "color-jitter max-lighting brightness contrast saturation",
    "--rotate 10 rotates by up to so many degrees, where the recipe has --rotate.": "max-rotate rotation rotate",
    "--min-scale 0.5 is the smallest share of an image that is kept, where the recipe has it.": "scale ratio max-zoom "
    "min-zoom crop-pct crop-mode random-resized-crop train-crop-size",
    "Images are mirrored left and right alone (--flip); write a recipe of your own for more:  --copy mine.py": "flipud "
    "vflip flip-vert",
    "Recipes train on whole images; write one of your own for this:  --copy mine.py": "mosaic close-mosaic shear "
    "perspective copy-paste bgr mixup-mode",
    "--mixup 0.4 blends pairs of images, where the recipe has --mixup.": "cutmix cutmix-alpha mixup-alpha mixup "
    "mixup-prob mixup-off-epoch",
    "--ema 0.99 keeps an average of the weights, where the recipe has --ema.": "model-ema ema ema-decay swa",
    "--drop-path 0.1 is stochastic depth, where the recipe has --drop-path.": "drop-path drop-path-rate drop-block "
    "stochastic-depth",
    "--set moms=0.9,0.85,0.95 , where the recipe calls fit_one_cycle.": "momentum moms beta1 beta2 adam-beta1 adam-beta2",
    "They are the recipe's:  fastcls recipe NAME --help, or --copy mine.py for one of your own": "item-tfms batch-tfms "
    "transform augmentations transforms train-transforms transform-config tfms preset layer-decay head-lr cbs callbacks "
    "splitter opt-eps opt-betas norm-weight-decay bias-weight-decay encoder-lr lr-head lr-mult backbone-lr",
    "--labels TABLE: its columns are found by their titles.": "label label-column image-column-name label-column-name "
    "fn-col label-col path-column image-column image-col target-column y-col x-col label-delim input-key target-key",
    "Every epoch is in history.csv; --track tensorboard, wandb or mlflow logs elsewhere.": "logging-dir log-dir "
    "logging-steps log-interval logging-strategy logging-first-step print-freq wandb-project tracker enable-progress-bar "
    "progress-bar profile",
    "Every metric is computed and saved; --best-by NAME chooses the one that decides.": "metrics metric-name scoring "
    "monitor eval-metrics problem-type mode",
    "fastcls push RUN OWNER/NAME publishes a finished run.": "push-to-hub hub-model-id hub-token hub-private-repo",
    "fastcls evaluate RUN PATH evaluates a finished run on further images.": "eval-checkpoint do-predict test-only",
    "--accumulate N takes a batch in N parts; --auto-batch finds what fits.": "grad-checkpointing "
    "gradient-checkpointing auto-find-batch-size",
    "Classes have the names of their folders, or those in the table.": "class-map class-names vocab",
    "Evaluation chooses its batch, and the head is made for your classes.": "per-device-eval-batch-size "
    "validation-batch-size-multiplier eval-batch-size val-batch-size val-bs test-batch-size "
    "ignore-mismatched-sizes remove-unused-columns",
    "Loaders are set up by the device.": "pin-mem pin-memory dataloader-pin-memory persistent-workers prefetch "
    "prefetch-factor no-prefetcher dataloader-drop-last rect shuffle",
    "Images are normalised as the network was trained.": "mean std normalize interpolation image-mean image-std in-chans "
    "image-processor-name feature-extractor-name config-name",
    "--fit crop, squish or pad makes them square, where the recipe has --fit.": "resize-mode resize-method train-interpolation",
    "A pickle, or code of others, is not run.": "trust-remote-code use-auth-token token cache-dir model-revision",
}
ADVICE_OF_RUNS = {
    "-o answers.csv, .jsonl or .parquet; without it they are printed.": "save save-txt save-conf save-dir csv save-csv "
    "output-format format results-file results-dir results-format as-pandas project name show show-labels",
    "A GPU is used where onnxruntime has one, and every core.": "device batch-size batch bs workers "
    "num-workers half n-workers accelerator devices gpu num-gpus amp no-amp precision cpu use-gpu cuda dl "
    "per-device-eval-batch-size channels-last torchcompile jobs",
    "The run knows its size, its classes and its settings.": "imgsz img-size image-size input-size size num-classes nc class-map "
    "model-kwargs labels classes config crop-pct mean std interpolation backbone arch num-labels pretrained task label",
    "fastcls evaluate computes every metric, each with its interval.": "metrics metric plots topk top-k with-loss scoring "
    "eval-metric with-decoded",
    "model.onnx takes images of any size, in batches of any length.": "dynamic simplify opset keep-init aten-fallback "
    "workspace nms optimize batch-input input-names dynamo opset-version",
    "The whole network is exported.": "part",
    "-o DIR is the folder of the files.": "fname file filename file-name path-to-save",
    "--split valid takes these of its images alone.": "subset dl-type",
    "Images that cannot be read get a row that says why.": "skip-bad ignore-errors",
}
# the option that does most of what a word of others does, with its value in place of {}, where the verb or recipe has it
INSTEAD = {
    option: names.split()
    for option, names in {
        "--tune head": "freeze freeze-backbone freeze-encoder",
        "--set wd={}": "weight-decay wd alpha",
        "--set ps={}": "dropout drop drop-rate",
        "--class-weights": "class-weight",
        "--folds {}": "cv num-bag-folds n-folds k-fold folds n-splits kfold",
        "--loss label-smoothing": "label-smoothing label-smoothing-factor smoothing",
        "--policy rand": "aa auto-augment randaugment ra-magnitude",
        "--policy trivial": "trivial-augment",
        "--jitter {}": "hsv-v color-jitter max-lighting brightness contrast",
        "--mixup {}": "cutmix cutmix-alpha mixup-alpha",
        "--ema 0.99": "model-ema ema-decay",
        "--gpus {}": "world-size",
    }.items()
}
WHOLE = {  # another command that does it
    "resume": "resume last",
    **dict.fromkeys(("test-only", "eval-checkpoint"), "evaluate last {path}"),
    **dict.fromkeys("cv num-bag-folds n-folds k-fold folds n-splits kfold".split(), "compare {words} --folds {value}"),
}
SHORT = {"-b": "--batch-size", "-j": "--num-workers", "-a": "--arch", "-c": "--config"}  # timm's, torchvision's, Lightning's
FORMATS = {  # of export: the option, and what is said where it is not the same
    "onnx": ("--onnx", ""),
    "openvino": ("--openvino", ""),
    "safetensors": ("--safetensors", ""),
    **dict.fromkeys(("torch_export", "exported_program", "pt2"), ("--torch-export --trust", "")),
    **dict.fromkeys(
        ("torch_state_dict", "state_dict", "pytorch", "torch", "pt", "pth", "torch_model", "pickle", "pkl", "package_default"),
        ("--safetensors", "Weights are written as safetensors, which safetensors.torch.load_file reads as a state dict."),
    ),
    "torchscript": ("--torch-export --trust", "TorchScript is not written; a torch.export program, model.pt2, is."),
    **dict.fromkeys(
        ("engine", "tensorrt", "trt"), ("--onnx", "TensorRT's trtexec makes an engine of it: docs/exporting.md has the line.")
    ),
    **dict.fromkeys(
        ("tflite", "litert", "saved_model", "pb", "edgetpu", "tfjs", "keras"),
        ("--onnx", "onnx2tf converts that to LiteRT and a saved model: docs/exporting.md has the line."),
    ),
    **dict.fromkeys(
        ("coreml", "mlmodel", "mlpackage"),
        ("--torch-export --trust", "coremltools converts that: docs/exporting.md has the four lines."),
    ),
}
_ADVICE, _ADVICE_OF_RUNS, _INSTEAD = (
    {name: text for text, names in table.items() for name in (names if isinstance(names, list) else names.split())}
    for table in (ADVICE, ADVICE_OF_RUNS, INSTEAD)
)
TRUE, FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")
VALID = ("valid", "val", "validation", "test")  # folders beside train/ that are found
NUMBER = re.compile(r"-?\d[\d.]*(e-?\d+)?")
KEY = re.compile(r"[A-Za-z_][\w.-]*")


class Verbs(TyperGroup):
    """The verbs, after the words of other tools have been translated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        try:
            words, notes = translated(args, self.commands)
        except FastclsError as error:
            raise refusal(error) from None
        if notes and not {"-q", "--quiet"}.intersection(words):
            logger.warning(f"note     {', '.join(notes)}:  {shell.command(*words)}")
        if sys.argv[1:] == args:  # what a run records as its command
            sys.argv[1:] = words
        return super().parse_args(ctx, words)


@dataclass
class Line:
    """A command line as it is read: what of it was replaced, and what is refused, with what to say."""

    options: dict[str, bool]  # of the verb and the recipe, without dashes, and whether each takes a value
    opposites: dict[str, str] = field(default_factory=dict)  # of switches: the flag that turns each off
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    strange: list[list[str]] = field(default_factory=list)  # their words, which the recipe's own check refuses
    weak: list[list[str]] = field(default_factory=list)  # words for others' words, less than the same option as typed
    whole: str = ""  # another command that does what is wanted

    def replaced(self, word: str, by: str) -> None:
        self.notes.append(f"{word} is {by} here" if by else f"{word} is the default here")

    def refuse(self, word: str, values: Sequence[str], reason: str, instead: str = "") -> list[str]:
        """Collect what is wrong; gives the words that are to be typed instead."""
        self.refused.append(f"{' '.join([word.partition('=')[0], *values])}: {reason}")
        words = instead.format(*values or [""]).split()
        if not words or words[0].lstrip("-") not in self.options or (not values and "{" in instead):
            return []
        self.weak.append(words)
        return words

    def end(self, words: list[str]) -> None:
        """UsageError with all that is refused, and the command without it."""
        if self.refused:
            lines = self.refused + self.unknown
            what = lines[0] if len(lines) == 1 else f"{len(lines)} settings are not taken:\n  " + "\n  ".join(lines)
            given = dict(pairwise(words))
            held = {"path": shlex.quote(given.get("--path", "PHOTOS")), "words": shlex.join(words[1:])}
            whole = shlex.split(self.whole.format(**held))
            raise UsageError(what, f"Instead:  {shell.command(*(whole or words))}")


def translated(words: Sequence[str], verbs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The words as we have them, and what was replaced; UsageError where the right words are known but not the same."""
    words = [{"-h": "--help", **SHORT}.get(word, word) for word in words]
    match words:
        case ["help", *rest]:
            words = [*rest, "--help"]
        case ["classify", *rest]:
            words = rest
    words = _mode_first(words)
    if not words or words[0].startswith("-"):
        return words, []
    notes: list[str] = []
    verb, rest, more = words[0], words[1:], list[str]()
    if verb not in verbs and "_" in verb:
        verb = verb.replace("_", "-")
        notes += [f"{words[0]} is {verb} here"] * (verb in verbs)
    if verb in ("train", "fit") and rest[:1] == ["resume"]:
        notes.append(f"{verb} resume is resume here")
        verb, rest = "resume", rest[1:]
    if verb not in verbs and verb in VERBS:
        if verb != "train":
            notes.append(f"{verb} is {VERBS[verb]} here")
        verb, *more = VERBS[verb].split()
        rest += more
    if verb not in verbs:
        if verb in NO_VERBS:
            raise UsageError(f"There is no command {verb!r}.", NO_VERBS[verb])
        meant = did_you_mean(verb, [*verbs, *VERBS])
        raise UsageError(f"There is no command {verb!r}{meant or '.'}", "All of them:  fastcls --help")
    line = Line(
        {"help": False}
        | {flag[2:]: not option.is_flag for option in verbs[verb].params for flag in _flags(option)},
        {option.opts[-1][2:]: next(iter(option.secondary_opts), "") for option in verbs[verb].params if _switch(option)},
        notes,
    )
    found = [verb, *(_trained(rest, verb, line) if verb in WITH_RECIPE else _placed(rest, verb, line))]
    if more and found.count(more[0]) > 1:  # it was given too
        place = len(found) - 1 - found[::-1].index(more[0])
        found[place : place + len(more)] = []
    line.end(found)
    return found, notes


def _flags(option: Any) -> list[str]:
    return [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]


def _switch(option: Any) -> bool:
    return bool(getattr(option, "is_flag", False) and _flags(option))


def _parts(word: str) -> tuple[str, str, str]:
    """The name of a flag, as other tools' tables have it, the "=" and the value behind it.

    Of a dotted name, as Lightning and AutoGluon have them (trainer.max_epochs), the last part.
    """
    flag, equals, value = word.partition("=")
    name = flag[2:].lower().replace("_", "-").rpartition(".")[2] if flag.startswith("--") else ""
    return name, equals, value


def _values(rest: list[str], equals: str, value: str, several: bool = True) -> list[str]:
    """What follows a flag, taken off `rest`: its value, or all words up to the next flag."""
    if equals:
        return [value]
    count = next((i for i, word in enumerate(rest) if word.startswith("-") and not NUMBER.fullmatch(word)), len(rest))
    count = count if several else min(count, 1)
    taken, rest[:count] = rest[:count], []
    return taken


def _mode_first(words: Sequence[str]) -> list[str]:
    """Ultralytics' task=classify mode=train as the verb in front."""
    modes = [word[5:] for word in words if word.startswith("mode=")]
    return [*modes[:1], *(word for word in words if not word.startswith(("mode=", "task=")))]


def _flagged(words: Sequence[str]) -> list[str]:
    """data=photos epochs=3, as Ultralytics has them, as flags."""
    found: list[str] = []
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        before = words[index - 1] if index else ""
        if before == "-o" and equals and key.isidentifier():
            raise UsageError(f"-o {word}: -o is the folder or file to write.", f"--set {word}")
        if equals and KEY.fullmatch(key) and not before.startswith("-") and not Path(word).exists():
            found += [f"--{key}", value]
        else:
            found.append(word)
    return found


# ------------------------------------------------------------------ verbs with a recipe


def _trained(words: Sequence[str], verb: str, line: Line) -> list[str]:
    """The words of a verb that takes a recipe: the recipe, then its knobs and the options under our names."""
    from fastcls.settings import configs

    words = configs.expanded(_named(_flagged(words), verb, line), line.options)
    knobs = _knobs(words)
    line.options |= {name: True for name in knobs}
    return [word for flag in _renamed(words, knobs, line) for word in flag]


def _named(words: list[str], verb: str, line: Line) -> list[str]:
    """With the recipe first: `folder` where images are given and no recipe; a folder, and fastai's numbers, as flags."""
    from fastcls.settings import sources

    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    places, rest = words[:count], words[count:]
    if not places and len(rest) > 2 and not rest[-2].startswith("-") and Path(rest[-1]).is_dir():  # torchvision's
        places = [rest.pop()]
    if verb == "compare" or (len(places) == 1 and not NUMBER.fullmatch(places[0]) and not Path(places[0]).is_dir()):
        return words
    recipe = places[:1] if places and (places[0] in sources.available() or places[0].endswith(".py")) else []
    if not recipe and places and not NUMBER.fullmatch(places[0]) and not Path(places[0]).is_dir():
        return words
    numbers, named = iter(("--epochs", "--lr")), list[str]()
    for place in places[len(recipe) :]:
        flag = next(numbers, "--lr") if NUMBER.fullmatch(place) else "--path"
        line.replaced(place, f"{flag} {place}")
        named += [flag, place]
    rest = [*named, *rest]
    names = [_parts(word)[0] for word in rest]
    if not recipe and any("path" in (name, synonyms.ours(name)) for name in names):
        line.notes.append("the recipe for images of your own is folder")
        recipe = ["folder"]
    if not recipe and rest and not {"help", "config"}.intersection(names):
        line.refused.append("Which recipe to train is not named; folder is the one for images of your own.")
        recipe = ["folder", "--path", "PHOTOS"]
    return [*recipe, *rest]


def _knobs(words: Sequence[str]) -> dict[str, Knob]:
    """The knobs of the recipe that is named first, by their flags; none where there is no such recipe."""
    from fastcls.settings import sources

    if not words or words[0].startswith("-"):
        return {}
    try:
        knobs = sources.find(words[0]).knobs
    except FastclsError:
        return {}
    return {knob.flag[2:]: knob for knob in knobs}


def _renamed(words: Sequence[str], knobs: Mapping[str, Knob], line: Line) -> list[list[str]]:
    """Flags that neither the verb nor the recipe has, under the names that they have here; each with its values."""
    rest, own = list(words), line.options
    found = list[list[str]]()
    out: dict[str, str] = {}
    autogluon = next((name for name in (_parts(word)[0] for word in words) if name == "train-data"), "")
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        typed = word.partition("=")[0]
        ours = name if name in own else (synonyms.ours(name) or "").replace("_", "-")
        if (name, "train-data") == ("path", autogluon):
            ours = "out"
        given = (value if equals else rest[0] if rest and not rest[0].startswith("--") else "").lower()
        switched = given in (*TRUE, *FALSE)
        if not name:
            found.append([word])
        elif ours in line.opposites and switched:
            _values(rest, equals, value, several=False)
            switch = f"--{ours}" if given in TRUE else line.opposites[ours]
            line.replaced(f"{typed} {given}", switch)
            found.append([switch] if switch else [])
        elif name in SWITCHES and name not in own and (switched or not given):
            taken = _values(rest, equals, value, several=False) if switched else []
            if given in FALSE and name in ALWAYS:
                line.refuse(typed, taken, "It cannot be turned off.")
                continue
            same = OFF.get(name, ()) if given in FALSE else SWITCHES[name]
            line.replaced(" ".join([typed, *taken]), " ".join(same))
            line.weak.append(list(same))
            found.append(line.weak[-1])
        elif name in NEVER and ours not in own and (given in (*FALSE, "none", "0.0")):
            line.replaced(" ".join([typed, *_values(rest, equals, value, several=False)]), "")
        elif ours in own:
            knob = knobs.get(ours)
            takes = own[ours] and (knob is None or knob.kind != "bool" or switched or bool(NUMBER.fullmatch(given)))
            taken = _values(rest, equals, value, several=ours == "size") if takes else []
            found.append(_given(typed, ours, taken, equals, knob, line))
        elif name.removeprefix("no-") in own:
            found.append([word])
        elif name in ("project", "name"):
            out[name] = " ".join(_values(rest, equals, value))
            line.refuse(typed, [out[name]], _ADVICE[name])
        elif name in _ADVICE and _ADVICE[name] == _ADVICE["val"] and _beside(found, value or given):
            line.notes.append(f"{typed} is part of --path here")
            _values(rest, equals, value)
        elif name in _ADVICE:
            taken = _values(rest, equals, value)
            line.whole = WHOLE.get(name, line.whole).replace("{value}", " ".join(taken))
            found.append(line.refuse(typed, taken, _ADVICE[name], _INSTEAD.get(name, "")))
        else:
            found.append([word, *([] if equals else _values(rest, equals, value))])
            meant = did_you_mean(name, [*own, *synonyms.names()]) or "."
            what = f"that is --{ours}, which this recipe does not have." if ours else f"there is no such setting{meant}"
            line.unknown.append(f"{' '.join(found[-1])}: {what}")
            line.strange.append(found[-1])
    if out:
        found.append(["--out", "/".join(out[name] for name in ("project", "name") if name in out)])
    if ["--device", "cpu"] in found:  # Lightning's devices are processes there
        found = [["--processes", *words[1:]] if words[:1] == ["--gpus"] else words for words in found]
    given_flags = [words[0] for words in found if words and not any(words is weak for weak in line.weak)]
    for weak in line.weak:
        if weak and weak[0] != "--set" and weak[0] in given_flags:
            weak.clear()
        given_flags += weak[:1]
    return [words for words in found if not (line.refused and words in line.strange)]


def _beside(found: list[list[str]], valid: str) -> bool:
    """Whether the images to validate on are beside those of --path, photos/train, which is then made the folder of both."""
    path = next((words for words in found if words[:1] == ["--path"] and len(words) > 1), ["", ""])
    both = Path(path[1]).parent
    if Path(path[1]).name != "train" or not valid or Path(valid).parent != both or Path(valid).name not in VALID:
        return False
    path[1] = str(both)
    return True


def _given(typed: str, ours: str, taken: list[str], equals: str, knob: Knob | None, line: Line) -> list[str]:
    """A flag of ours, with the value that it has here for the one that was typed."""
    given = " ".join(taken)
    value = VALUES.get(ours, {}).get(given.lower(), given)
    reason, instead = _refused(ours, given)
    if reason:
        line.whole = WHOLE.get(ours, line.whole)
        return line.refuse(typed, taken, reason, instead)
    if (ours, given.lower()) in OTHER_WORDS:
        other = OTHER_WORDS[ours, given.lower()]
        line.replaced(f"{typed} {given}", other)
        return other.split()
    if knob is not None and knob.choices and given not in map(str, knob.choices) and given.lower() in knob.choices:
        value = given.lower()
    if knob is not None and knob.kind == "bool" and NUMBER.fullmatch(given) and given not in ("0", "1"):
        if float(given) != 0.5 and float(given):  # a probability
            return line.refuse(typed, taken, f"--{ours} is on or off here, for half of the images.", f"--{ours}")
        value = "true" if float(given) else "false"
    if ours == "size" and len(sides := re.findall(r"\d+", given)) > 1:
        sides = sides[-2:]  # after the channels
        if len(set(sides)) > 1:
            return line.refuse(typed, taken, "Images are square here.", f"--size {max(sides, key=int)}")
        value = sides[0]
    if ours == "weights" and "imagenet1k" in given.lower():  # torchvision's
        value = "imagenet"
    if ours == "time" and re.fullmatch(r"\d*\.\d+", given):  # Ultralytics'
        value = f"{given}h"
    if ours == "time" and re.fullmatch(r"\d+(:\d+){0,3}", given):
        parts = zip(reversed(given.split(":")), (1, 60, 3600, 86400), strict=False)
        value = f"{sum(int(part) * unit for part, unit in parts)}s"
    flag = f"--{ours}"
    if taken and not value:
        line.replaced(f"{typed} {given}", "")
        return []
    found = [f"{flag}={given}"] if equals else [flag, *taken]
    if value != given:
        line.replaced(f"{typed} {given}".strip(), f"{flag} {value}")
        found = [flag, value]
    elif typed != flag:
        line.replaced(typed, flag)
    if taken and knob is not None and (knob.name, value) != ("epochs", "auto"):
        try:
            knob.take(value)
        except ValueError:
            line.unknown.append(f"{typed} {given}: takes {knob.allowed}.")
            line.strange.append(found)
    return found


def _refused(ours: str, value: str) -> tuple[str, str]:
    """What to say of a value that others give a setting of this name, and we do not, and the words to give instead."""
    if ours == "valid-pct" and value.isalpha():  # timm's name of a split
        return "Folders named train/, valid/ and test/ are found as they are; --valid-pct 0.2 draws a split.", ""
    if ours in ("device", "gpus") and "," in value:
        count = len(re.findall(r"\d+", value))
        return f"--gpus {count} trains on several GPUs.", f"--gpus {count}"
    if ours == "gpus" and value in ("auto", "-1", "all"):
        return "--gpus N trains on N GPUs of this machine; without it a run takes one.", ""
    if ours == "resume" and ("checkpoint" in value or value.endswith(synonyms.PICKLES)):
        return "A run is continued by its folder:  fastcls resume RUN", ""
    if ours == "weights" and value.endswith(synonyms.PICKLES):
        converted = shlex.quote(str(Path(value).with_suffix(".safetensors")))
        how = shell.command("import", value, "--trust-pickle")
        return f"Pickles are not read. If you trust who made it, first  {how}", f"--weights {converted}"
    if ours == "arch" and (network := _network(value)):
        if value.endswith(synonyms.PICKLES) and Path(value).is_file():
            converted = Path(value).with_suffix(".safetensors")
            how = f"{shell.command('import', value, '--trust-pickle')}  makes {converted} of it, for --weights."
            return f"This is a file of weights. If you trust who made it,  {how}", f"--arch {network}"
        return f"Networks are torchvision's and timm's; the nearest is {network}.", f"--arch {network}"
    return "", ""


def _network(name: str) -> str:
    """The network here that is nearest to one of Transformers, LightlyTrain or Ultralytics; '' for a name to leave."""
    plain = name.removeprefix("torchvision/").removeprefix("timm/").lower()
    foreign = "/" in plain or "-" in plain or plain.endswith((*synonyms.PICKLES, ".yaml")) or plain.startswith(("yolo", "dinov"))
    if not foreign or plain.startswith((".", "~", "hf-hub:", "hf_hub:", "local-dir:")) or Path(name).is_dir():
        return ""
    from fastcls.models import zoo

    known = {re.sub("[^a-z0-9]", "", word): f"timm/{word}" for word in zoo.names("timm")}
    known |= {re.sub("[^a-z0-9]", "", word): word for word in zoo.names("torchvision")}
    if yolo := re.match(r"yolo.*?([nsmlx])(-cls)?(\.\w+)?$", plain.rpartition("/")[2]):
        return {"n": "small", "s": "small", "l": "large", "x": "large"}.get(yolo[1], "base")
    if dino := re.search(r"dinov?([23])\W*(?:vit)?-?([tsblg])", plain):
        size = {"t": "small", "s": "small", "b": "base"}.get(dino[2], "large")
        return known.get(f"vit{size}patch{14 if dino[1] == '2' else 16}dinov{dino[1]}", "base")
    parts = re.split("[-_]", re.sub(r"\.(pt|pth|ckpt|pkl|bin|tar|yaml)$", "", plain.rpartition("/")[2]))
    for count in range(len(parts), 0, -1):
        if found := known.get(re.sub("[^a-z0-9]", "", "".join(parts[:count]))):
            return found
    close = nearest("".join(parts), known)
    return known[close[0]] if close else "base"


# ------------------------------------------------------------------ other verbs


def _placed(words: Sequence[str], verb: str, line: Line) -> list[str]:
    """Flags of what has a place here in their places, others under our names."""
    if verb not in PLACES:
        return list(words)
    rest, own, places = _flagged(words), line.options, PLACES[verb]
    named: dict[int, dict[int, list[str]]] = {}
    plain, found = list[str](), list[str]()
    while rest:
        word = rest.pop(0)
        name, equals, value = _parts(word)
        typed = word.partition("=")[0]
        ours = name if name in own else OTHERS.get(verb, {}).get(name, "")
        given = (value if equals else rest[0] if rest else "").lower()
        place = next((i for i, names in enumerate(places) if name in names), None)
        if not name:
            short = word == "-o" and rest
            (found if short or (word.startswith("-") and word != "-") else plain).append(word)
            found += [rest.pop(0)] if short else []
        elif ours and not own[ours] and given in (*TRUE, *FALSE):
            _values(rest, equals, value, several=False)
            switch = f"--{ours}" if given in TRUE else line.opposites.get(ours, "")
            line.replaced(f"{typed} {given}", switch)
            found += [switch] if switch else []
        elif verb == "export" and ours == "out" and (file := Path(value or given)).suffix:
            _values(rest, equals, value, several=False)
            line.replaced(f"{typed} {file}", f"--out {file.with_suffix('')}")
            found += ["--out", str(file.with_suffix(""))]
        elif ours:
            if typed != f"--{ours}":
                line.replaced(typed, f"--{ours}")
            found += [f"--{ours}={value}"] if equals else [f"--{ours}"]
            found += [rest.pop(0)] if own[ours] and not equals and rest else []
        elif place is not None and (equals or rest):
            line.notes.append(f"{typed} is a positional argument here")
            named.setdefault(place, {})[places[place].index(name)] = _values(rest, equals, value, several=False)
        elif verb == "export" and name == "format" and given:
            taken = _values(rest, equals, value)
            option, said = FORMATS.get(given.replace("-", "_"), ("--onnx", "It is not written; many converters read ONNX."))
            if said:
                line.refuse(f"{typed}", taken, said)
            else:
                line.replaced(typed, option)
            found += option.split()
        elif name in _ADVICE_OF_RUNS:
            found += line.refuse(typed, _values(rest, equals, value), _ADVICE_OF_RUNS[name], _INSTEAD.get(name, ""))
        else:
            taken = _values(rest, equals, value)
            line.refused.append(f"{' '.join([typed, *taken])}: there is no such option{did_you_mean(name, own) or '.'}")
    if verb == "predict" and 1 in named and 0 not in named and not plain:
        line.replaced("the run", "last")
        named[0] = {0: ["last"]}
    before: list[str] = []
    for index in range(len(places)):
        believed = min(named[index]) if index in named else None
        before += named[index][believed] if believed is not None else [plain.pop(0)] if plain else []
    return [*before, *plain, *found]

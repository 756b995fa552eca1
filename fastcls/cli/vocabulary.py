"""What users of other tools type: verbs, flags and values, by what is ours for each, or what does their work here."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from fastcls.settings import synonyms

T = TypeVar("T")


def by_name(table: Mapping[T, str]) -> dict[str, T]:
    """A table of others' names by ours, the other way round."""
    return {name: ours for ours, names in table.items() for name in names.split()}


VERBS = by_name(
    {
        "recipe": "train fit finetune fine-tune fit-one-cycle fit-flat-cos train-image-classification "
        "run-image-classification",
        "predict": "infer inference predict-image-classification get-preds",
        "predict --probabilities": "predict-proba",
        "predict --features": "embed",
        "evaluate": "val validate score eval test",
        "export": "onnx-export",
        "report": "interpret plot-top-losses top-losses plot-confusion-matrix confusion-matrix classification-report "
        "show-results",
        "check": "show-batch",
        "search": "randomized-search optimize tune hpo",
        "compare": "grid-search",
        "compare --folds 5": "cross-validate cross-val-score cross-val-predict",
        "runs": "leaderboard ls",
        "doctor": "checks",
        "recipes": "list",
        "models": "list-models",
        "serve": "ui gui",
    }
)
NO_VERBS = by_name(
    {
        "fastcls recipe NAME --dry-run builds the network and prints what it costs.": "summary",
        "--weights takes what others have trained:  fastcls recipe folder --path photos --weights FILE": "pretrain",
        "fastcls export RUN --int8 --fp16 measures a network's speed, size and accuracy.": "benchmark",
        "fastcls recipe NAME --print-config prints every knob and option.": "settings",
        "fastcls classifies whole images:  fastcls predict RUN IMAGES": "detect segment pose obb track",
    }
)
WITH_RECIPE = ("recipe", "compare", "search", "lr-find")
SHORT = {"-b": "--batch-size", "-j": "--num-workers", "-a": "--arch", "-c": "--config"}  # timm's, Lightning's
# what other tools name by a flag and we by its place: of each place the names, the one to believe first
RUN = "run checkpoint ckpt ckpt-path weights model-path model model-name-or-path"
IMAGES = "source input images data data-dir data-path data-root path"
PLACES = {
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
}
OTHERS = {  # flags of verbs without a recipe
    "predict": by_name(
        {
            "out": "output output-dir output-file",
            "threshold": "conf",
            "top-k": "topk",
            "tta": "augment",
            "probabilities": "proba predict-proba",
        }
    ),
    "export": by_name({"out": "output output-dir outdir path save-dir", "fp16": "half"}),
    "evaluate": by_name({"out": "output output-dir results-dir", "labels": "data-csv"}),
}
SWITCHES = by_name(  # by the words that do the same; nothing where it is so anyway
    {
        "": "amp pretrained do-train do-eval plots deterministic load-best-model-at-end cos-lr save val stratify "
        "shuffle pin-mem pin-memory normalize overlap-mask save-hyperparameters enable-checkpointing logger show",
        "--weights none": "no-pretrained",
        "--precision fp16": "fp16 to-fp16 half",
        "--precision bf16": "bf16 to-bf16",
        "--precision fp32": "no-amp",
        "--compile default": "torchcompile torch-compile",
        "--device cpu": "no-cuda use-cpu",
        "--track wandb": "log-wandb wandb",
        "--track tensorboard": "tensorboard",
        "--patience 5": "early-stopping",
    }
)
# a switch that is given as false
OFF = {"amp": "--precision fp32", "pretrained": "--weights none", "load-best-model-at-end": "--keep last"}
ALWAYS = ("val", "shuffle", "normalize", "stratify", "deterministic", "cos-lr")  # which cannot be turned off
# what is off here: to give it as false, or as 0, changes nothing
NEVER = by_name(
    {
        "": "rect profile single-cls push-to-hub gradient-checkpointing grad-checkpointing trust-remote-code dropout "
        "drop fast-dev-run sync-bn distributed freeze model-ema cutmix mosaic shear perspective copy-paste flipud "
        "vflip aa auto-augment swa cooldown-epochs label-smoothing overfit-batches ignore-mismatched-sizes "
        "use-auth-token"
    }
)
VALUES = {  # of ours by those of others, in small letters; nothing where it is so anyway
    "precision": by_name(
        {
            "fp16": "16 16-mixed 16-true float16 half",
            "bf16": "bf16-mixed bf16-true bfloat16",
            "fp32": "32 32-true float32",
        }
    ),
    "device": {"gpu": "cuda"},
    "resume": {"true": "auto", "": "auto"},
    "compile": {"true": "default", "false": "off"},
    "opt": by_name({"adamw": "adamw-torch adamw_torch adamw_torch_fused adamw_hf", "sgd": "momentum"}),
    "weights": {"true": "imagenet", "default": "imagenet", "false": "none"},
    "track": {"none": "", "false": ""},
    "gpus": {"1": ""},
    "best-by": by_name(
        {
            "accuracy": "acc acc1 top1 val_acc val_accuracy eval_accuracy",
            "valid_loss": "loss val_loss eval_loss",
            "f1": "macro_f1 f1_macro eval_f1",
        }
    ),
}
OTHER_WORDS = {  # what is another option here, by option and value
    ("gpus", "0"): "--device cpu",
    ("bs", "-1"): "--auto-batch",
    ("bs", "auto"): "--auto-batch",
    ("precision", "fp16"): "--fp16",
    ("precision", "int8"): "--int8",
    ("quantize", "true"): "--int8",
    ("quantize", "int8"): "--int8",
}
EXPORTED = (
    *synonyms.PICKLES,
    ".onnx",
    ".safetensors",
    ".pt2",
    ".torchscript",
    ".engine",
    ".tflite",
)  # files, no folders
TORCH = "torch_state_dict state_dict pytorch torch pt pth torch_model pickle pkl package_default"
FORMATS = by_name(  # of export
    {
        "--onnx": "onnx engine tensorrt trt tflite litert saved_model pb edgetpu tfjs keras",
        "--openvino": "openvino",
        "--safetensors": f"safetensors {TORCH}",
        "--torch-export --trust": "torch_export exported_program pt2 torchscript coreml mlmodel mlpackage",
    }
)
UNLIKE = by_name(  # what is said of formats that are not quite those
    {
        "Weights are written as safetensors, which safetensors.torch.load_file reads as a state dict.": TORCH,
        "TorchScript is not written; a torch.export program, model.pt2, is.": "torchscript",
        "TensorRT's trtexec makes an engine of it: docs/exporting.md has the line.": "engine tensorrt trt",
        "onnx2tf converts that to LiteRT and a saved model: docs/exporting.md has the line.": "tflite litert "
        "saved_model pb edgetpu tfjs keras",
        "coremltools converts that: docs/exporting.md has the four lines.": "coreml mlmodel mlpackage",
    }
)
FOLDS = "cv num-bag-folds n-folds k-fold folds n-splits kfold"
BESIDE = "The folder of --path holds train/ and valid/, or the table of --labels a column split."
# what does the work of a setting that others have, the first that fits: of training, then of verbs that read a run
ADVICE = {
    "The classes are counted from the images.": "num-classes nc num-labels n-classes classes",
    "--set ps=0.1 is dropout before the last layer, where the recipe has no --dropout.": "dropout drop drop-rate",
    "--class-weights weighs rare classes more, where the recipe has it.": "class-weight pos-weight",
    "lr-find chooses the rates and the steps itself.": "num-it start-lr end-lr stop-div num-training",
    "The centre of the whole image is evaluated, at --size.": "val-resize-size val-crop-size test-input-size crop-size",
    "--erase 0.25 erases a random rectangle, where the recipe has --erase.": "remode recount resplit reprob",
    "The network is the recipe's:  fastcls recipe NAME --help": "hidden-layer-sizes layers activation heads",
    "--tune head trains the head alone, --tune probe solves it on frozen features; full does that first.": "freeze*",
    "--arch small, base or large chooses the network, --time 20m the length of the training.": "presets",
    "fastcls search RECIPE --space KNOB=VALUES tries settings.": "hyperparameter-tune-kwargs num-trials n-trials",
    "Each setting is an option:  --lr 1e-3 --epochs 5 ; fastcls search tries several.": "hyperparameters overrides "
    "model-args model-kwargs trainer-args transform-args optimizer-args",
    "The schedule is one cycle, with a warm-up; --set pct_start=0.3 is its share.": "sched* lr-sched* warmup-* "
    "lr-warmup-* decay-* cooldown-epochs lr-step-size lr-gamma min-lr lr-min lrf pct-start div div-final",
    "Decoded images are cached on disk; --cache-gb N limits them.": "cache cache-images cache-dataset in-memory",
    "--checkpoint-minutes N; the end of an epoch is always saved.": "save-period save-steps save-every checkpoint-hist "
    "every-n-epochs save-checkpoint-args recovery-interval",
    "Every epoch is evaluated and saved, and the weights of the best one are kept.": "eval*-strategy eval-steps "
    "save-strategy save-total-limit save-best save-top-k check-val-every-n-epoch val-check-interval eval-interval "
    "val-interval checkpoint-callback enable-checkpointing log-every-n-steps",
    "--epochs N or --time 20m; --limit N takes at most N images a class.": "max-*steps num-steps steps limit-steps",
    "--path DIR names the images; a recipe has its own dataset.": "dataset dataset-name data-name dataset-config-name",
    "--limit N takes at most N images a class, in each split.": "max-*samples num-samples limit-*-batches fraction "
    "overfit-batches fast-dev-run subset subsample",
    "--gpus N trains on N GPUs of this machine.": "strategy distributed world-size dist-* num-nodes sync-bn local-rank "
    "ra-sampler",
    "The recipe has no --wd; --set wd=0.05 is weight decay there.": "weight-decay wd alpha",
    "fastcls compare RECIPE --folds 5 holds out each image once.": FOLDS,
    "Evaluation chooses its batch, and the head is made for your classes.": "*-eval-batch-size eval-batch-size "
    "val-batch-size val-bs validation-batch-size-multiplier test-batch-size ignore-mismatched-sizes "
    "remove-unused-columns",
    BESIDE: "val val-dir val-data val-csv valid valid-dir valid-data valid-col valid-name validation-dir "
    "validation-file tuning-data eval-data test-data test-dir train-split is-valid split-col",
    "--out FOLDER names the run's folder.": "project name experiment run-name exp-name experiment-name",
    "--loss label-smoothing, where the recipe has --loss.": "label-smoothing* smoothing eps",
    "--loss focal, asymmetric or another, where the recipe has --loss.": "loss loss-* criterion bce-loss",
    "--policy rand or trivial, where the recipe has --policy.": "aa auto-augment randaugment policy ra-magnitude "
    "augmix-severity trivial-augment augmentation augment aug-preset",
    "--jitter 0.2 changes brightness, contrast and colour, where the recipe has --jitter.": "hsv-? color-jitter "
    "max-lighting brightness contrast saturation",
    "--rotate 10 rotates by up to so many degrees, where the recipe has --rotate.": "max-rotate rotation rotate",
    "--min-scale 0.5 is the smallest share of an image that is kept, where the recipe has it.": "scale ratio max-zoom "
    "min-zoom crop-pct crop-mode random-resized-crop train-crop-size",
    "Images are mirrored left and right alone (--flip); write a recipe of your own for more:  --copy mine.py": "flipud "
    "vflip flip-vert",
    "Recipes train on whole images; write one of your own for this:  --copy mine.py": "mosaic close-mosaic multi-scale "
    "nbs shear perspective copy-paste bgr mixup-mode",
    "--mixup 0.4 blends pairs of images, where the recipe has --mixup.": "cutmix* mixup*",
    "--ema 0.99 keeps an average of the weights, where the recipe has --ema.": "model-ema ema ema-decay swa",
    "--drop-path 0.1 is stochastic depth, where the recipe has --drop-path.": "drop-path* drop-block stochastic-depth",
    "--set moms=0.9,0.85,0.95 , where the recipe calls fit_one_cycle.": "momentum moms beta? adam-beta?",
    "They are the recipe's:  fastcls recipe NAME --help, or --copy mine.py for one of your own": "*tfms *transforms "
    "transform augmentations transform-config preset layer-decay head-lr cbs callbacks clip-mode get-? get-items "
    "splitter opt-eps opt-betas norm-weight-decay bias-weight-decay encoder-lr lr-head lr-mult backbone-lr",
    "--labels TABLE: its columns are found by their titles.": "label label-* *-column* *-col *-key",
    "Every epoch is in history.csv; --track tensorboard, wandb or mlflow logs elsewhere.": "logging-* log-dir "
    "log-interval print-freq wandb-project tracker *progress-bar disable-tqdm profile",
    "Every metric is computed and saved; --best-by NAME chooses the one that decides.": "metrics metric-name scoring "
    "monitor eval-metrics problem-type mode greater-is-better",
    "fastcls push RUN OWNER/NAME publishes a finished run.": "push-to-hub hub-*",
    "fastcls evaluate RUN PATH evaluates a finished run on further images.": "eval-checkpoint do-predict test-only",
    "--accumulate N takes a batch in N parts; --auto-batch finds what fits.": "grad*-checkpointing "
    "auto-find-batch-size",
    "Classes have the names of their folders, or those in the table.": "class-map class-names vocab",
    "Loaders are set up by the device.": "*pin-mem* persistent-workers prefetch* no-prefetcher dataloader-drop-last "
    "rect shuffle tf32 benchmark",
    "Images are normalised as the network was trained.": "mean std normalize interpolation image-mean image-std "
    "in-chans image-processor-name feature-extractor-name config-name",
    "--fit crop, squish or pad makes them square, where the recipe has --fit.": "resize-* train-interpolation",
    "A pickle, or code of others, is not run.": "trust-remote-code use-auth-token token cache-dir model-revision",
}
ADVICE_OF_RUNS = {
    "-o answers.csv, .jsonl or .parquet; without it they are printed.": "save save-txt save-conf save-dir "
    "save-csv csv *format results-* as-pandas project name show show-labels",
    "A GPU is used where onnxruntime has one, and every core.": "device batch-size batch bs workers num-workers half "
    "n-workers accelerator devices gpu num-gpus amp no-amp precision cpu use-gpu cuda dl per-device-eval-batch-size "
    "channels-last torchcompile jobs no-prefetcher stream",
    "The run knows its size, its classes and its settings.": "imgsz img-size image-size input-size size num-classes nc "
    "class-map model-kwargs labels classes config crop-pct mean std interpolation backbone arch num-labels pretrained "
    "task label",
    "fastcls evaluate computes every metric, each with its interval.": "metrics metric plots topk top-k with-loss "
    "scoring eval-metric with-decoded",
    "model.onnx takes images of any size, in batches of any length.": "dynamic simplify opset* keep-init aten-fallback "
    "workspace nms optimize batch-input input-names dynamo",
    "The whole network is exported.": "part",
    "-o DIR is the folder of the files.": "fname file filename file-name path-to-save",
    "--split valid takes these of its images alone.": "subset dl-type",
    "Images that cannot be read get a row that says why.": "skip-bad ignore-errors",
}
# of those: switches, which no value follows but true or false
ALONE = by_name(
    {
        "": "save save-txt save-conf csv save-csv show half amp no-amp plots dynamic simplify nms optimize pretrained "
        "keep-init use-gpu cpu cuda as-pandas channels-last with-loss with-decoded skip-bad torchcompile no-prefetcher "
        "show-labels dynamo"
    }
)
# the option that does most of it, with the value in place of {}, where the verb or recipe has that
INSTEAD = by_name(
    {
        "--tune head": "freeze freeze-backbone freeze-encoder",
        "--set wd={}": "weight-decay wd alpha",
        "--set ps={}": "dropout drop drop-rate",
        "--class-weights": "class-weight",
        "--folds {}": FOLDS,
        "--loss label-smoothing": "label-smoothing label-smoothing-factor smoothing",
        "--policy rand": "aa auto-augment randaugment ra-magnitude",
        "--policy trivial": "trivial-augment",
        "--jitter {}": "hsv-v color-jitter max-lighting brightness contrast",
        "--mixup {}": "cutmix cutmix-alpha mixup-alpha",
        "--ema 0.99": "model-ema ema-decay",
        "--gpus {}": "world-size",
    }
)
WHOLE = by_name(  # another command that does it
    {
        "resume last": "resume",
        "evaluate last {path}": "test-only eval-checkpoint",
        "compare {words} --folds {value}": FOLDS,
    }
)


def advice(name: str, table: Mapping[str, str]) -> str:
    """What is said of a flag; '' of one that is not in the table."""
    return next((said for said, names in table.items() if any(fnmatchcase(name, one) for one in names.split())), "")

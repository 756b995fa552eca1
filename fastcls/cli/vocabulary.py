"""What users of other tools type: verbs, flags and values, with ours for each, or what does their work here."""

from __future__ import annotations

from fastcls.settings import synonyms


def names_in(text: str) -> list[str]:
    return text.split()


FOLDS = "cv num-bag-folds n-folds k-fold folds n-splits kfold"
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
    "confusion-matrix": "report",
    "classification-report": "report",
    "show-results": "report",
    "randomized-search": "search",
    "optimize": "search",
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
    "export": {"output": "out", "output-dir": "out", "outdir": "out", "path": "out", "save-dir": "out", "half": "fp16"},
    "evaluate": {"output": "out", "output-dir": "out", "data-csv": "labels", "results-dir": "out"},
}
# switches, and the words that do the same; nothing where it is so anyway
SWITCHES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        names_in(
            "amp pretrained do-train do-eval plots deterministic load-best-model-at-end cos-lr save val "
            "stratify shuffle "
            "pin-mem pin-memory normalize overlap-mask save-hyperparameters enable-checkpointing logger show"
        ),
        (),
    ),
    "no-pretrained": ("--weights", "none"),
    "fp16": ("--precision", "fp16"),
    "to-fp16": ("--precision", "fp16"),
    "to-bf16": ("--precision", "bf16"),
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
NEVER = names_in(
    "rect profile single-cls push-to-hub gradient-checkpointing grad-checkpointing trust-remote-code "
    "fast-dev-run sync-bn "
    "distributed freeze model-ema cutmix mosaic shear perspective copy-paste flipud vflip aa auto-augment swa "
    "cooldown-epochs label-smoothing dropout drop overfit-batches ignore-mismatched-sizes use-auth-token"
)
VALUES = {  # of ours by those of others, in small letters; nothing where it is so anyway
    "precision": dict.fromkeys(("16", "16-mixed", "16-true", "float16", "half"), "fp16")
    | dict.fromkeys(("bf16-mixed", "bf16-true", "bfloat16"), "bf16")
    | dict.fromkeys(("32", "32-true", "float32"), "fp32"),
    "device": {"gpu": "cuda"},
    "resume": {"true": "auto", "": "auto"},
    "compile": {"true": "default", "false": "off"},
    "opt": dict.fromkeys(("adamw-torch", "adamw_torch", "adamw_torch_fused", "adamw_hf"), "adamw")
    | {"momentum": "sgd"},
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
    ("precision", "fp16"): "--fp16",
    ("precision", "int8"): "--int8",
    ("quantize", "true"): "--int8",
    ("quantize", "int8"): "--int8",
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
    "decay-epochs lr-warmup-epochs lr-warmup-method lr-warmup-decay warmup-lr cooldown-epochs lr-schedule "
    "pct-start div "
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
    "sync-bn local-rank dist-bn ra-sampler",
    "The recipe has no --wd; --set wd=0.05 is weight decay there.": "weight-decay wd alpha",
    "fastcls compare RECIPE --folds 5 holds out each image once.": FOLDS,
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
    "Recipes train on whole images; write one of your own for this:  --copy mine.py": "mosaic close-mosaic "
    "multi-scale nbs shear "
    "perspective copy-paste bgr mixup-mode",
    "--mixup 0.4 blends pairs of images, where the recipe has --mixup.": "cutmix cutmix-alpha mixup-alpha mixup "
    "mixup-prob mixup-off-epoch",
    "--ema 0.99 keeps an average of the weights, where the recipe has --ema.": "model-ema ema ema-decay swa",
    "--drop-path 0.1 is stochastic depth, where the recipe has --drop-path.": "drop-path drop-path-rate drop-block "
    "stochastic-depth",
    "--set moms=0.9,0.85,0.95 , where the recipe calls fit_one_cycle.": "momentum moms beta1 beta2 adam-beta1 "
    "adam-beta2",
    "They are the recipe's:  fastcls recipe NAME --help, or --copy mine.py for one of your own": "item-tfms batch-tfms "
    "transform augmentations transforms train-transforms transform-config tfms preset layer-decay head-lr cbs "
    "callbacks clip-mode "
    "get-x get-y get-items splitter opt-eps opt-betas norm-weight-decay bias-weight-decay encoder-lr lr-head "
    "lr-mult backbone-lr",
    "--labels TABLE: its columns are found by their titles.": "label label-column image-column-name label-column-name "
    "fn-col label-col path-column image-column image-col target-column y-col x-col label-delim input-key target-key",
    "Every epoch is in history.csv; --track tensorboard, wandb or mlflow logs elsewhere.": "logging-dir log-dir "
    "logging-steps log-interval logging-strategy logging-first-step print-freq wandb-project tracker "
    "enable-progress-bar disable-tqdm "
    "progress-bar profile",
    "Every metric is computed and saved; --best-by NAME chooses the one that decides.": "metrics metric-name scoring "
    "monitor eval-metrics problem-type mode greater-is-better",
    "fastcls push RUN OWNER/NAME publishes a finished run.": "push-to-hub hub-model-id hub-token hub-private-repo",
    "fastcls evaluate RUN PATH evaluates a finished run on further images.": "eval-checkpoint do-predict test-only",
    "--accumulate N takes a batch in N parts; --auto-batch finds what fits.": "grad-checkpointing "
    "gradient-checkpointing auto-find-batch-size",
    "Classes have the names of their folders, or those in the table.": "class-map class-names vocab",
    "Evaluation chooses its batch, and the head is made for your classes.": "per-device-eval-batch-size "
    "validation-batch-size-multiplier eval-batch-size val-batch-size val-bs test-batch-size "
    "ignore-mismatched-sizes remove-unused-columns",
    "Loaders are set up by the device.": "pin-mem pin-memory dataloader-pin-memory persistent-workers prefetch "
    "prefetch-factor no-prefetcher dataloader-drop-last rect shuffle tf32 benchmark",
    "Images are normalised as the network was trained.": "mean std normalize interpolation image-mean image-std "
    "in-chans "
    "image-processor-name feature-extractor-name config-name",
    "--fit crop, squish or pad makes them square, where the recipe has --fit.": "resize-mode resize-method "
    "train-interpolation",
    "A pickle, or code of others, is not run.": "trust-remote-code use-auth-token token cache-dir model-revision",
}
ADVICE_OF_RUNS = {
    "-o answers.csv, .jsonl or .parquet; without it they are printed.": "save save-txt save-conf save-dir csv save-csv "
    "output-format format results-file results-dir results-format as-pandas project name show show-labels",
    "A GPU is used where onnxruntime has one, and every core.": "device batch-size batch bs workers "
    "num-workers half n-workers accelerator devices gpu num-gpus amp no-amp precision cpu use-gpu cuda dl "
    "per-device-eval-batch-size channels-last torchcompile jobs no-prefetcher stream",
    "The run knows its size, its classes and its settings.": "imgsz img-size image-size input-size size "
    "num-classes nc class-map "
    "model-kwargs labels classes config crop-pct mean std interpolation backbone arch num-labels pretrained task label",
    "fastcls evaluate computes every metric, each with its interval.": "metrics metric plots topk top-k "
    "with-loss scoring "
    "eval-metric with-decoded",
    "model.onnx takes images of any size, in batches of any length.": "dynamic simplify opset keep-init aten-fallback "
    "workspace nms optimize batch-input input-names dynamo opset-version",
    "The whole network is exported.": "part",
    "-o DIR is the folder of the files.": "fname file filename file-name path-to-save",
    "--split valid takes these of its images alone.": "subset dl-type",
    "Images that cannot be read get a row that says why.": "skip-bad ignore-errors",
}
# the option that does most of it, with the value in place of {}, where the verb or recipe has that
INSTEAD = {
    option: names.split()
    for option, names in {
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
    }.items()
}
WHOLE = {  # another command that does it
    "resume": "resume last",
    **dict.fromkeys(("test-only", "eval-checkpoint"), "evaluate last {path}"),
    **dict.fromkeys(names_in(FOLDS), "compare {words} --folds {value}"),
}
SHORT = {
    "-b": "--batch-size",
    "-j": "--num-workers",
    "-a": "--arch",
    "-c": "--config",
}  # timm's, torchvision's, Lightning's
EXPORTED = (
    *synonyms.PICKLES,
    ".onnx",
    ".safetensors",
    ".pt2",
    ".torchscript",
    ".engine",
    ".tflite",
)  # files, no folders
FORMATS = {  # of export: the option, and what is said where it is not the same
    "onnx": ("--onnx", ""),
    "openvino": ("--openvino", ""),
    "safetensors": ("--safetensors", ""),
    **dict.fromkeys(("torch_export", "exported_program", "pt2"), ("--torch-export --trust", "")),
    **dict.fromkeys(
        (
            "torch_state_dict",
            "state_dict",
            "pytorch",
            "torch",
            "pt",
            "pth",
            "torch_model",
            "pickle",
            "pkl",
            "package_default",
        ),
        (
            "--safetensors",
            "Weights are written as safetensors, which safetensors.torch.load_file reads as a state dict.",
        ),
    ),
    "torchscript": ("--torch-export --trust", "TorchScript is not written; a torch.export program, model.pt2, is."),
    **dict.fromkeys(
        ("engine", "tensorrt", "trt"),
        ("--onnx", "TensorRT's trtexec makes an engine of it: docs/exporting.md has the line."),
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
ALONE = names_in(  # of those: switches, which no value follows but true or false
    "save save-txt save-conf csv save-csv show half amp no-amp plots dynamic simplify nms optimize pretrained "
    "keep-init "
    "use-gpu cpu cuda as-pandas channels-last with-loss with-decoded skip-bad torchcompile no-prefetcher "
    "show-labels dynamo"
)
BY_NAME, BY_NAME_OF_RUNS, INSTEAD_BY_NAME = (
    {name: text for text, names in table.items() for name in (names if isinstance(names, list) else names.split())}
    for table in (ADVICE, ADVICE_OF_RUNS, INSTEAD)
)

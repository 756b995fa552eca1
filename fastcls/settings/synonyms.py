"""What other tools call our settings: Ultralytics, timm, fastai, Lightning, transformers, AutoGluon, scikit-learn."""

from __future__ import annotations

OURS = {
    "bs": "batch batch-size train-batch-size per-device-train-batch-size",
    "lr": "learning-rate lr0 base-lr lr-max max-lr",
    "wd": "weight-decay",
    "arch": "model model-name model-name-or-path backbone architecture network",
    "size": "imgsz img-size image-size input-size resolution",
    "path": "data data-dir data-path data-root dataset-path dataset-dir train-data train-dir root image-dir images",
    "labels": "data-csv train-csv csv label-file labels-file annotations",
    "epochs": "n-epochs n-epoch num-epochs num-train-epochs max-epochs",
    "opt": "optimizer optimiser optim opt-func",
    "smoothing": "label-smoothing label-smoothing-factor",
    "dropout": "drop drop-rate",
    "valid_pct": "val-split valid-split validation-split test-size holdout-frac val-size valid-size",
    "weights": "pretrained-weights init-weights initial-checkpoint",
    "workers": "num-workers n-workers dataloader-num-workers n-jobs",
    "seed": "random-state random-seed manual-seed",
    "out": "output output-dir out-dir save-dir results-dir default-root-dir outdir",
    "clip": "clip-grad max-grad-norm grad-clip gradient-clip-val",
    "accumulate": "grad-accum-steps gradient-accumulation-steps accumulate-grad-batches",
    "patience": "early-stopping-patience",
    "best_by": "metric-for-best-model eval-metric",
    "resume": "resume-from-checkpoint",
    "track": "report-to logger",
    "erase": "reprob random-erase-prob erasing",
    "rotate": "degrees",
    "flip": "fliplr hflip",
    "ema": "model-ema-decay",
    "time": "time-limit max-time",
    "gpus": "devices num-gpus num-gpu n-gpu nproc-per-node",
    "device": "accelerator",
    "overwrite": "exist-ok overwrite-output-dir overwrite-output",
}
_KNOWN = {name: ours for ours, names in OURS.items() for name in names.split()}


def ours(name: str) -> str | None:
    """The setting that another tool calls so: 'batch_size' or 'batch-size' is 'bs'."""
    return _KNOWN.get(name.lower().replace("_", "-"))

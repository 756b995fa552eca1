"""What other tools call our settings: Ultralytics, timm, torchvision, fastai, Lightning, transformers, AutoGluon, …"""

from __future__ import annotations

PICKLES = (".pth", ".pt", ".pkl", ".ckpt", ".bin", ".tar")  # in which other tools keep weights
OURS = {
    "bs": "batch batch-size train-batch-size per-device-train-batch-size per-gpu-train-batch-size per-gpu-batch-size",
    "lr": "learning-rate lr0 base-lr lr-max max-lr learning-rate-init peak-lr",
    "wd": "weight-decay alpha",
    "arch": "model model-name model-name-or-path backbone backbone-name architecture network checkpoint-name",
    "size": "imgsz img-size image-size input-size resolution",
    "path": "data data-dir data-path data-root dataset-path dataset-dir train-data train-dir root image-dir "
    "images train "
    "train-folder image-folder image-path dataset-root source src",
    "labels": "data-csv train-csv csv label-file labels-file annotations",
    "epochs": "n-epochs n-epoch num-epochs num-train-epochs max-epochs max-iter",
    "opt": "optimizer optimiser optim opt-func solver",
    "smoothing": "label-smoothing label-smoothing-factor",
    "dropout": "drop drop-rate",
    "valid_pct": "val-split valid-split validation-split test-size holdout-frac val-size valid-size "
    "train-val-split val-pct validation-fraction val-ratio val-fraction valid-ratio val-percent",
    "weights": "pretrained pretrained-weights init-weights initial-checkpoint pretrained-path backbone-weights "
    "model-weights",
    "workers": "num-workers n-workers dataloader-num-workers n-jobs workers-per-gpu",
    "seed": "random-state random-seed manual-seed seed-everything",
    "out": "output output-dir out-dir save-dir results-dir default-root-dir outdir output-directory model-dir "
    "save-path",
    "clip": "clip-grad max-grad-norm grad-clip gradient-clip-val clip-grad-norm gradient-clip gradient-clipping",
    "accumulate": "grad-accum-steps gradient-accumulation-steps accumulate-grad-batches",
    "patience": "early-stopping-patience n-iter-no-change",
    "best_by": "metric-for-best-model eval-metric best-metric monitor-metric",
    "resume": "resume-from-checkpoint resume-interrupted",
    "track": "report-to logger",
    "erase": "reprob random-erase-prob erasing random-erase random-erasing",
    "rotate": "degrees max-rotate rotation",
    "precision": "amp-dtype dtype mixed-precision torch-dtype",
    "flip": "fliplr hflip do-flip",
    "folds": "cv n-folds k-fold n-splits num-bag-folds kfold",
    "vary": "param-grid grid",
    "trials": "iterations num-trials n-trials n-iter",
    "config": "cfg config-file config-path cfg-file",
    "ema": "model-ema-decay",
    "mixup": "mixup-alpha",
    "time": "time-limit max-time time-budget",
    "gpus": "devices num-gpus num-gpu n-gpu nproc-per-node",
    "device": "accelerator",
    "overwrite": "exist-ok overwrite-output-dir overwrite-output",
}
_KNOWN = {name: ours for ours, names in OURS.items() for name in names.split()}


def names() -> list[str]:
    """All that they call them."""
    return list(_KNOWN)


def ours(name: str) -> str | None:
    """The setting that another tool calls so: 'batch_size' or 'batch-size' is 'bs'."""
    return _KNOWN.get(name.lower().replace("_", "-"))

# ruff: noqa: E501  a table of command lines
"""Whole command lines of other tools' users: what is taken becomes a command of ours, what is not is answered with one."""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path

import pytest
import typer

from fastcls.cli.verbs import app
from fastcls.cli.words import translated
from fastcls.datasets import layouts
from fastcls.errors import DataError, OutputError, UsageError
from fastcls.runfolder import runs

ROOT = typer.main.get_command(app)
INSTEAD = "Instead: "
LINES = {
    # Ultralytics
    "classify train data=photos model=yolov8s-cls.pt epochs=5 imgsz=64 batch=-1 device=cpu": "Instead: recipe folder --path photos --arch small --epochs 5 --size 64 --auto-batch --device cpu",
    "train data=photos epochs=2 optimizer=AdamW lr0=0.001 lrf=0.01 momentum=0.937 weight_decay=0.0005": "Instead: recipe folder --path photos --epochs 2 --opt adamw --lr 0.001 --set wd=0.0005",
    "train data=photos epochs=2 erasing=0.4 auto_augment=randaugment hsv_v=0.4": "Instead: recipe folder --path photos --epochs 2 --erase 0.4 --policy rand --jitter 0.4",
    "train data=photos dropout=0.1 val=True save=True save_period=5 cache=False": "Instead: recipe folder --path photos --set ps=0.1",
    "train data=photos imgsz=64 rect=False single_cls=False profile=False compile=True": "recipe folder --path photos --size 64 --compile default",
    "train data=photos time=0.5 patience=10 close_mosaic=10": "Instead: recipe folder --path photos --time 0.5h --patience 10",
    "predict model=r1 source=photos conf=0.5 imgsz=64 save_txt=True device=cpu": "Instead: predict r1 photos --threshold 0.5",
    "val model=r1 data=photos split=val batch=16 plots=True": "Instead: evaluate r1 photos --split val",
    "export model=r1 format=openvino int8=True": "export r1 --openvino --int8",
    "export model=r1 format=engine half=True device=0": "Instead: export r1 --onnx --fp16",
    "train data=photos model=yolo11n-cls.yaml pretrained=best.pt epochs=1": "Instead: recipe folder --path photos --arch small --weights best.safetensors --epochs 1",
    # timm
    "train photos --model vit_small_patch16_224 --pretrained --num-classes 2 --img-size 224 -b 16 --opt adamw --sched cosine --epochs 2": "Instead: recipe folder --path photos --arch vit_small_patch16_224 --size 224 --bs 16 --opt adamw --epochs 2",
    "train --data-dir photos --model resnet50 --input-size 3 160 160 --mean 0.5 0.5 0.5 --std 0.5 0.5 0.5": "Instead: recipe folder --path photos --arch resnet50 --size 160",
    "train photos --mixup 0.2 --cutmix 1.0 --smoothing 0.1 --drop-path 0.1 --reprob 0.25 --remode pixel": "Instead: recipe folder --path photos --mixup 0.2 --loss label-smoothing --erase 0.25",
    "train photos --aa rand-m9-mstd0.5-inc1 --color-jitter 0.4 --hflip 0.5 --vflip 0.0": "Instead: recipe folder --path photos --policy rand --jitter 0.4 --flip true",
    "train photos --amp --amp-dtype bfloat16 --channels-last --pin-mem --log-interval 50": "Instead: recipe folder --path photos --precision bf16 --channels-last",
    "train photos --model-ema --model-ema-decay 0.99 --checkpoint-hist 3 --recovery-interval 0": "Instead: recipe folder --path photos --ema 0.99",
    "train photos --resume output/train/last.pth.tar --experiment exp1": "Instead: resume last",
    "validate photos --model resnet50 --checkpoint r1 --batch-size 64 --amp": "Instead: evaluate r1 photos",
    "inference --data-dir photos --model resnet18 --checkpoint r1 --topk 3 --output-dir out": "predict r1 photos --top-k 3 --out out",
    "train photos --val-split validation --warmup-lr 1e-5 --cooldown-epochs 0 --layer-decay 0.75": "Instead: recipe folder --path photos",
    # torchvision references
    "train --data-path photos --model resnet18 --batch-size 16 --lr 0.1 --lr-step-size 30 --lr-gamma 0.1": "Instead: recipe folder --path photos --arch resnet18 --bs 16 --lr 0.1",
    "train --data-path photos --model mobilenet_v3_large --opt rmsprop --wd 1e-5 --auto-augment imagenet --random-erase 0.2": "Instead: recipe folder --path photos --arch mobilenet_v3_large --set wd=1e-5 --policy rand --erase 0.2",
    "train --data-path photos --weights ResNet50_Weights.IMAGENET1K_V2 --model resnet50 --test-only": "Instead: evaluate last photos",
    "train --data-path photos --val-resize-size 232 --val-crop-size 224 --train-crop-size 176 --model-ema": "Instead: recipe folder --path photos --ema 0.99",
    "train -a resnet18 -b 64 -j 2 photos": "recipe folder --path photos --arch resnet18 --bs 64 --workers 2",
    "train --data-path photos --mixup-alpha 0.2 --cutmix-alpha 1.0 --norm-weight-decay 0.0 --workers 2 --print-freq 10": "Instead: recipe folder --path photos --mixup 0.2 --workers 2",
    # fastai
    "fine_tune folder 3 --path photos --freeze_epochs 1 --base_lr 2e-3": "Instead: recipe folder --epochs 3 --path photos --lr 2e-3",
    "fit_one_cycle 5 3e-3 --path photos --wd 0.1 --moms 0.95,0.85,0.95": "Instead: recipe folder --epochs 5 --lr 3e-3 --path photos --set wd=0.1",
    "fit photos --arch resnet34 --metrics error_rate --valid_pct 0.2 --item_tfms Resize(224)": "Instead: recipe folder --path photos --arch resnet34 --valid-pct 0.2",
    "fit folder --path photos --bs 64 --seed 42 --cbs SaveModelCallback --do_flip True --max_rotate 10": "Instead: recipe folder --path photos --bs 64 --seed 42 --flip True --rotate 10",
    "lr_find folder --path photos --num_it 100 --start_lr 1e-7": "Instead: lr-find folder --path photos",
    "get_preds r1 photos --with_loss True": "Instead: predict r1 photos",
    "show_batch --path photos": "check photos",
    "plot_top_losses r1": "report r1",
    "export r1 --fname export.pkl": "Instead: export r1",
    # Lightning, AutoTimm
    "fit --model.backbone resnet18 --data.data_dir photos --trainer.max_epochs 2 --trainer.accelerator cpu --trainer.devices 1": "recipe folder --arch resnet18 --path photos --epochs 2 --device cpu",
    "fit --data photos --trainer.max_epochs 3 --trainer.check_val_every_n_epoch 1": "Instead: recipe folder --path photos --epochs 3",
    "fit --data photos --trainer.precision 16-mixed --trainer.fast_dev_run True --trainer.logger False": "Instead: recipe folder --path photos --precision fp16",
    "fit --data photos --trainer.max_time 00:01:00:00 --trainer.limit_train_batches 0.1 --seed_everything 7": "Instead: recipe folder --path photos --time 3600s --seed 7",
    "test --ckpt_path r1 --data photos": "evaluate r1 photos",
    "predict --ckpt_path r1 --data.data_dir photos --data.batch_size 8": "Instead: predict r1 photos",
    "validate --config recipe.yaml --ckpt_path r1 --data photos": "Instead: evaluate r1 photos",
    "fit --data photos --model.optimizer adamw --model.lr 1e-3 --model.scheduler cosine --data.image_size 224": "Instead: recipe folder --path photos --opt adamw --lr 1e-3 --size 224",
    # AutoGluon
    "fit --train_data photos --presets medium_quality --time_limit 60 --eval_metric accuracy": "Instead: recipe folder --path photos --time 60s --best-by accuracy",
    "fit --train_data photos --hyperparameters.optim.lr 0.001 --hyperparameters.optim.max_epochs 3": "recipe folder --path photos --lr 0.001 --epochs 3",
    "fit --train_data photos --label label --problem_type multiclass --path out": "Instead: recipe folder --path photos --out out",
    "predict_proba --model r1 --data photos": "predict r1 photos --probabilities",
    "evaluate --data photos r1 --metrics accuracy f1": "Instead: evaluate r1 photos",
    "leaderboard": "runs",
    # LightlyTrain
    "train out=out/a data=photos model=torchvision/resnet18 epochs=2 batch_size=8 accelerator=auto devices=1": "recipe folder --out out/a --path photos --arch torchvision/resnet18 --epochs 2 --bs 8 --device auto",
    "train_image_classification out=out/b data.train=photos/train data.val=photos/val model=dinov2/vits14 steps=100": "Instead: recipe folder --out out/b --path photos --arch timm/vit_small_patch14_dinov2",
    "export out=m.pt checkpoint=r1 part=model format=torch_model": "Instead: export r1 --out m --safetensors",
    "list_models": "models",
    "embed out=e.csv data=photos checkpoint=r1 format=csv": "Instead: predict r1 photos --out e.csv --features",
    "train_image_classification out=out/c data=photos model=dinov3/convnext-tiny classes=2 precision=bf16-mixed num_workers=2": "Instead: recipe folder --out out/c --path photos --arch convnext_tiny --precision bf16 --workers 2",
    # transformers
    "run_image_classification --train_dir photos --validation_dir val --model_name_or_path google/vit-base-patch16-224-in21k --output_dir out --num_train_epochs 2": "Instead: recipe folder --path photos --arch timm/vit_base_patch16_224 --out out --epochs 2",
    "train --train_dir photos --model_name_or_path facebook/convnext-tiny-224 --learning_rate 5e-5 --weight_decay 0.01 --warmup_ratio 0.1": "Instead: recipe folder --path photos --arch convnext_tiny --lr 5e-5 --set wd=0.01",
    "train --train_dir photos --per_device_train_batch_size 8 --per_device_eval_batch_size 8 --eval_strategy epoch --save_strategy epoch --logging_strategy steps": "Instead: recipe folder --path photos --bs 8",
    "train --train_dir photos --fp16 True --optim adamw_torch --lr_scheduler_type cosine --report_to none": "Instead: recipe folder --path photos --precision fp16 --opt adamw",
    "train --train_dir photos --max_train_samples 100 --max_eval_samples 50 --seed 1337 --push_to_hub True": "Instead: recipe folder --path photos --seed 1337",
    "train --train_dir photos --image_column_name image --label_column_name label --ignore_mismatched_sizes True --trust_remote_code True": "Instead: recipe folder --path photos",
    "train --train_dir photos --image_processor_name google/vit-base-patch16-224 --gradient_checkpointing True --dataloader_drop_last True": "Instead: recipe folder --path photos",
    # scikit-learn
    "fit --path photos --test_size 0.3 --random_state 0 --stratify True --shuffle True": "recipe folder --path photos --valid-pct 0.3 --seed 0",
    "fit digits-cnn --max_iter 20 --learning_rate_init 0.01 --batch_size 32 --early_stopping True --n_iter_no_change 5": "recipe digits-cnn --epochs 20 --lr 0.01 --bs 32 --patience 5",
    "fit digits-cnn --alpha 0.01 --hidden_layer_sizes 64,32 --solver adam --verbose True": "Instead: recipe digits-cnn --wd 0.01 --verbose",
    "cross_validate digits-cnn --cv 5": "compare digits-cnn --folds 5",
    "cross_val_score digits-cnn --cv 5 --scoring accuracy": "Instead: compare digits-cnn --folds 5",
    "grid_search digits-cnn --param_grid lr=0.01,0.1": "compare digits-cnn --vary lr=0.01,0.1",
    "score r1 photos": "evaluate r1 photos",
    "fit photos --n_splits 5 --class_weight balanced": "Instead: compare folder --path photos --class-weights --folds 5",
}
PROBLEMS = {  # what is said of a word, in part
    "export r1 format=torchscript": "model.pt2",
    "export r1 format=coreml": "docs/exporting.md",
    "train data=photos fliplr=0.3": "on or off",
    "train data=photos --image-size 64 96": "square",
    "train data=photos model=microsoft/resnet-18": "the nearest is resnet18",
    "train data=photos model=facebook/dinov2-small": "timm/vit_small_patch14_dinov2",
    "train data=photos model=openai/whisper-large": "fastcls models PART_OF_A_NAME",
    "train data=photos model=resnet18.pt": "the nearest is resnet18",
    "train folder --path photos --drop-path 0.1 --metrics f1 --cbs x": "3 settings are not taken",
    "predict r1 photos --skip_bad": "get a row that says why",
    "fit_one_cycle 1 1e-3": "Which recipe to train is not named",
    "train resume=True data=photos val=False": "cannot be turned off",
    "train data=photos nc=3 lerning_rate=1": "did you mean 'learning-rate'",
}
ALIKE = {
    "train data.train=photos/train data.val=photos/val": "recipe folder --path photos",
    "fit data=photos accelerator=cpu devices=2": "recipe folder --path photos --device cpu --processes 2",
    "train resume model=r1": "resume r1",
    "fit_one_cycle --arch resnet18 --path photos 3 1e-3": "recipe folder --arch resnet18 --path photos --epochs 3 --lr 1e-3",
    "interpret last": "report last",
    "predict --source photos r1": "predict r1 photos",
    "predict source=photos": "predict last photos",
    "validate photos --model resnet18 --checkpoint r1": "evaluate r1 photos",
    "train data=photos --input-size 3 64 64 fliplr=0.5": "recipe folder --path photos --size 64 --flip true",
    "fit_one_cycle digits-cnn 1 1e-3": "recipe digits-cnn --epochs 1 --lr 1e-3",
    "recipe folder --path photos --skip_bad --train_val_split 0.3": "recipe folder --path photos --skip-bad --valid-pct 0.3",
}


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()


def answer(line: str) -> str:
    """The command that a line stands for, or the one that it is answered with."""
    try:
        return shlex.join(translated(shlex.split(line), ROOT.commands)[0])  # type: ignore[attr-defined]
    except UsageError as problem:
        return INSTEAD + problem.hint.removeprefix("Instead:  fastcls ")


@pytest.mark.parametrize("line", [*LINES, *ALIKE])
def test_a_line_of_another_tool_stands_for_a_command_that_is_taken(line: str) -> None:
    found = answer(line)
    assert found == (LINES | ALIKE)[line]
    command = found.removeprefix(INSTEAD)
    assert answer(command) == command, "a command of ours is untouched"
    words = shlex.split(command)
    if words[0] == "recipe":  # every knob and option takes its value
        with contextlib.redirect_stdout(io.StringIO()):
            assert not ROOT.main([*words, "--print-config"], standalone_mode=False)


@pytest.mark.parametrize("line", PROBLEMS)
def test_what_is_not_taken_says_what_does_its_work(line: str) -> None:
    with pytest.raises(UsageError) as problem:
        translated(shlex.split(line), ROOT.commands)  # type: ignore[attr-defined]
    assert PROBLEMS[line] in problem.value.message and "Instead:  fastcls " in problem.value.hint


def test_a_file_of_another_tool_in_a_runs_place_is_answered_with_its_import() -> None:
    Path("best.pt").write_bytes(b"x")
    with pytest.raises(OutputError, match="another tool") as problem:
        runs.find("best.pt")
    assert "fastcls import best.pt --trust-pickle" in problem.value.hint and "best.safetensors" in problem.value.hint
    Path("r1").mkdir()
    for name in ("run.json", "model.onnx"):
        Path("r1", name).write_text("{}")
    with pytest.raises(OutputError, match="a file of a run") as problem:
        runs.find("r1/model.onnx")
    assert problem.value.hint.endswith("  r1")


@pytest.mark.parametrize(
    ("form", "pattern"),
    [("{}_{:03}.jpg", r"'(.+)_\d+'"), ("{}.{}.jpg", r"'(.+)\.\d+'"), ("IMG_{1}.jpg", "one folder per class")],
)
def test_file_names_that_hold_the_class_are_answered_with_their_pattern(form: str, pattern: str) -> None:
    for label in ("cat", "dog"):
        for number in range(3):
            Path("photos", form.format(label, number)).touch()
    with pytest.raises(DataError) as problem:
        layouts.listed("photos")
    assert pattern in problem.value.hint

# ruff: noqa: E501  a table of command lines
"""Command lines as users of other tools type them: taken where the meaning is the same, else answered with the right one."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml
from conftest import Fastcls
from PIL import Image

from fastcls.cli.verbs import app
from fastcls.cli.words import translated
from fastcls.errors import UsageError

TAKEN = {
    # Ultralytics
    "train data=photos model=resnet18 epochs=3 imgsz=224": "recipe folder --path photos --arch resnet18 --epochs 3 --size 224",
    "classify train data=photos epochs=10 batch=16 lr0=0.01": "recipe folder --path photos --epochs 10 --bs 16 --lr 0.01",
    "train folder --data photos --imgsz 160 --device 0": "recipe folder --path photos --size 160 --device 0",
    "train data=photos seed=1 workers=4 patience=5": "recipe folder --path photos --seed 1 --workers 4 --patience 5",
    "train data=photos amp=True plots=True": "recipe folder --path photos",
    "train data=photos amp=False": "recipe folder --path photos --precision fp32",
    "train data=photos pretrained=False": "recipe folder --path photos --weights none",
    "predict model=last source=photos": "predict last photos",
    "predict --model last --source photos --conf 0.8": "predict last photos --threshold 0.8",
    "val model=last data=photos": "evaluate last photos",
    "export model=last format=onnx": "export last --onnx",
    # timm
    "train folder --data-dir photos --model resnet50 -b 32 --lr 1e-3": "recipe folder --path photos --arch resnet50 --bs 32 --lr 1e-3",
    "train --data-dir photos --img-size 224 --epochs 5": "recipe folder --path photos --size 224 --epochs 5",
    "train cifar10-resnet18 --weight-decay 0.05 --optimizer adamw": "recipe cifar10-resnet18 --wd 0.05 --opt adamw",
    "train folder --path p --batch-size=64 --pretrained": "recipe folder --path p --bs=64",
    "train folder --path p --clip-grad 1.0 --workers 4": "recipe folder --path p --clip 1.0 --workers 4",
    "train folder --path p --grad-accum-steps 2 --channels-last": "recipe folder --path p --accumulate 2 --channels-last",
    "train folder --path p --amp --output out": "recipe folder --path p --out out",
    "train folder --path p --torchcompile --log-wandb": "recipe folder --path p --compile default --track wandb",
    "train folder --path p -j 8 --initial-checkpoint w.safetensors": "recipe folder --path p --workers 8 --weights w.safetensors",
    "list-models resnet*": "models resnet*",
    # fastai
    "fit pets-resnet50 --n-epoch 4 --lr-max 1e-3": "recipe pets-resnet50 --epochs 4 --lr 1e-3",
    "fit pets-resnet50 --n_epochs 4 --bs 32": "recipe pets-resnet50 --epochs 4 --bs 32",
    "train pets-resnet50 --valid-split 0.3": "recipe pets-resnet50 --valid-pct 0.3",
    "train cifar10-cnn --opt-func sgd": "recipe cifar10-cnn --opt sgd",
    "lr-find pets-resnet50 --batch-size 32": "lr-find pets-resnet50 --bs 32",
    "train pets-resnet50 --fp16": "recipe pets-resnet50 --precision fp16",
    # transformers
    "train folder --train_dir photos --model_name_or_path resnet18": "recipe folder --path photos --arch resnet18",
    "train folder --path p --per_device_train_batch_size 8": "recipe folder --path p --bs 8",
    "train folder --path p --num_train_epochs 3 --learning_rate 2e-5": "recipe folder --path p --epochs 3 --lr 2e-5",
    "train folder --path p --output_dir o --overwrite_output_dir": "recipe folder --path p --out o --overwrite",
    "train folder --path p --bf16 --do_train --do_eval": "recipe folder --path p --precision bf16",
    "train folder --path p --gradient_accumulation_steps 4": "recipe folder --path p --accumulate 4",
    "train folder --path p --max_grad_norm 1": "recipe folder --path p --clip 1",
    "train folder --path p --report_to wandb": "recipe folder --path p --track wandb",
    "train folder --path p --dataloader_num_workers 2": "recipe folder --path p --workers 2",
    "train folder --path p --metric_for_best_model f1": "recipe folder --path p --best-by f1",
    # Lightning, LightlyTrain, AutoTimm
    "fit folder --path p --max_epochs 10 --precision 16-mixed": "recipe folder --path p --epochs 10 --precision fp16",
    "fit folder --path p --accelerator gpu --devices 2": "recipe folder --path p --device cuda --gpus 2",
    "fit folder --path p --gradient_clip_val 1": "recipe folder --path p --clip 1",
    "fit folder --path p --backbone resnet18 --image-size 224": "recipe folder --path p --arch resnet18 --size 224",
    "train --data photos --out o": "recipe folder --path photos --out o",
    # AutoGluon
    "fit folder --train-data photos --time-limit 600": "recipe folder --path photos --time 600s",
    "fit folder --path p --eval-metric f1_macro": "recipe folder --path p --best-by f1",
    "fit folder --path p --holdout-frac 0.2": "recipe folder --path p --valid-pct 0.2",
    "hpo digits-cnn --space lr=1e-3..1e-1:log": "search digits-cnn --space lr=1e-3..1e-1:log",
    # scikit-learn
    "fit digits-cnn --random-state 0": "recipe digits-cnn --seed 0",
    "fit folder --path p --test-size 0.25 --n-jobs 2": "recipe folder --path p --valid-pct 0.25 --workers 2",
    # a second round: flags with values that others give, verbs in their spelling
    "mode=train task=classify data=photos epochs=3": "recipe folder --path photos --epochs 3",
    "train data=photos fliplr=0 degrees=10": "recipe folder --path photos --flip 0 --rotate 10",
    "train data=photos exist_ok=True out=o": "recipe folder --path photos --overwrite --out o",
    "train data=photos resume=True out=o": "recipe folder --path photos --resume auto --out o",
    "train data=photos verbose=False": "recipe folder --path photos",
    "train folder --path p --num-gpu 2 --reprob 0.25": "recipe folder --path p --gpus 2 --erase 0.25",
    "validate --model last --data photos": "evaluate last photos",
    "fine_tune pets-resnet50 --epochs 3": "recipe pets-resnet50 --epochs 3",
    "fit_one_cycle pets-resnet50 --n_epoch 3": "recipe pets-resnet50 --epochs 3",
    "lr_find pets-resnet50": "lr-find pets-resnet50",
    "leaderboard": "runs",
    "export --checkpoint last --format onnx --out m": "export last --onnx --out m",
    "train folder --path p --fp16 --torch_compile": "recipe folder --path p --precision fp16 --compile default",
    "train folder --path p --no_cuda --load_best_model_at_end": "recipe folder --path p --device cpu",
    "predict last photos --output preds.csv --topk 3": "predict last photos --out preds.csv --top-k 3",
    # ours, untouched
    "recipe digits-cnn --set wd=0.05 -o out": "recipe digits-cnn --set wd=0.05 -o out",
    "compare digits-cnn --vary bs=32,64 --setting 'lr=0.1 bs=32'": "compare digits-cnn --vary bs=32,64 --setting 'lr=0.1 bs=32'",
    "embed --data photos --checkpoint last --out x.csv": "predict last photos --out x.csv --features",
    "help predict": "predict --help",
    "predict -h": "predict --help",
}

ADVISED = {
    "train folder --path p --num-classes 5": "counted from the images",
    "train data=photos nc=5": "counted from the images",
    "train data=photos freeze=10": "--tune head",
    "fit folder --path p --presets best_quality": "--arch small",
    "train folder --path p --sched cosine": "one cycle",
    "train folder --path p --warmup-epochs 3": "pct_start",
    "train folder --path p --dataset imagenet": "--path",
    "train folder --path p --save_steps 500": "--checkpoint-minutes",
    "train folder --path p --validation_dir v": "train/ and valid/",
    "recipe digits-cnn -o wd=0.05": "--set wd=0.05",
    "train folder --path p --weight_decay 0.05": "--set wd=",
    "trian digits-cnn": "did you mean 'train'?",
    "train data=photos project=out name=exp1": "--out out/exp1",
    "train data=photos model=yolo11n-cls.pt": "Instead:  fastcls recipe folder --path photos --arch small",
    "train data=photos device=0,1": "--gpus 2",
    "train data=photos fraction=0.1": "--limit N",
    "train folder --path p --val-split validation": "train/, valid/ and test/",
    "train folder --path p --aa rand-m9-mstd0.5": "--policy rand",
    "train folder --path p --model-ema": "--ema 0.99",
    "train folder --path p --freeze-epochs 1": "--tune head",
    "fit folder --path p --num-bag-folds 5": "compare RECIPE --folds 5",
    "fit folder --path p --hyperparameters x": "fastcls search",
    "fit folder --path p --label species": "--labels TABLE",
    "train folder --path p --lr_scheduler_type cosine": "one cycle",
    "train folder --path p --evaluation_strategy epoch": "Every epoch is evaluated",
    "train folder --path p --push_to_hub": "fastcls push",
    "train folder --path p --logging_steps 10": "history.csv",
    "train folder --path p --resume_from_checkpoint out/checkpoint-10": "fastcls resume RUN",
    "train folder --path p --max_steps 100": "--time 20m",
    "predict last photos --device cuda": "A GPU is used where onnxruntime has one",
    "predict last photos --save-txt": "-o answers.csv",
    "pretrain --data photos": "--weights takes what others have trained",
    "track model=last source=v.mp4": "classifies whole images",
}


@pytest.mark.parametrize("line", TAKEN)
def test_words_of_other_tools_are_taken(line: str) -> None:
    words, notes = translated(shlex.split(line), commands())
    assert shlex.join(words) == shlex.join(shlex.split(TAKEN[line]))
    typed = line.replace("train", "recipe", 1) if line.startswith("train") else line
    changed = shlex.split(typed) != words and not {"help", "-h"} & set(line.split())
    assert bool(notes) == changed, "every replaced word is said, no other is"


@pytest.mark.parametrize("line", ADVISED)
def test_words_with_another_meaning_are_answered_with_the_right_ones(fastcls: Fastcls, line: str) -> None:
    outcome = fastcls(*shlex.split(line))
    assert outcome.code == 2 and ADVISED[line] in outcome.output


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined,no-any-return]


def test_no_word_of_ours_is_one_of_theirs() -> None:
    """A flag of a verb keeps its own meaning: no recipe's knob is translated."""
    for line in ("recipe folder --path p --weights none --size 64", "recipe imagenette-cnn --weights none"):
        assert translated(line.split(), commands()) == (line.split(), [])
    with pytest.raises(UsageError):
        translated(["recipe", "folder", "--path", "p", "--num-classes", "3"], commands())


def test_settings_come_from_a_file_and_the_command_line_wins(fastcls: Fastcls, digits_run: Path) -> None:
    printed = fastcls("recipe", "digits-cnn", "--lr", "0.01", "--no-fused", "--set", "div=5", "--print-config")
    assert printed.code == 0
    Path("c.yaml").write_text(printed.stdout)
    again = fastcls("recipe", "--config", "c.yaml", "--print-config")
    assert again.stdout == printed.stdout
    other = yaml.safe_load(
        fastcls("recipe", "--config", "c.yaml", "--lr", "0.02", "--seed", "7", "--print-config").stdout
    )
    assert other == {**yaml.safe_load(printed.stdout), "lr": 0.02, "seed": 7}
    record = json.loads((digits_run / "run.json").read_text())
    replayed = yaml.safe_load(fastcls("recipe", "--config", digits_run / "run.json", "--print-config").stdout)
    for stage in record["knobs"].values():
        assert {name: replayed[name] for name in stage} == stage
    Path("c.toml").write_text('recipe = "digits-cnn"\nlr = 0.5\nfilters = [8, 16]\n')
    found = yaml.safe_load(fastcls("recipe", "--config", "c.toml", "--print-config").stdout)
    assert (found["lr"], found["filters"]) == (0.5, [8, 16])


@pytest.mark.parametrize(
    ("name", "text", "code", "said"),
    [
        ("c.yaml", "lrr: 1", 2, "did you mean '--lr'"),
        ("c.yaml", "- 1", 2, "contains list"),
        ("c.toml", "lr = ", 2, "c.toml"),
        ("c.json", "{", 2, "c.json"),
        ("c.json", '{"knobs": "x"}', 2, "knobs contains str"),
        ("c.json", '{"knobs": {"fit": [1]}}', 2, "fit contains list"),
        ("c.json", '{"knobs": {}, "options": "seed"}', 2, "options contains str"),
        ("c.json", '{"knobs": {}, "options": {"seconds": "abc"}}', 2, "--time"),
        ("c.json", '{"knobs": {}, "extra": [1]}', 2, "extra contains list"),
        ("c.yaml", "set: a=b", 2, "set contains str"),
        ("c.yaml", "lr: [[1], 2]", 2, "lr is nested"),
        ("c.yaml", "a: &a [1,1]\nb: &b [*a,*a]\nset: {div: [*b,*b]}", 2, "b is nested"),
        ("missing.yaml", None, 4, "No such file"),
    ],
)
def test_a_wrong_settings_file_is_refused(fastcls: Fastcls, name: str, text: str | None, code: int, said: str) -> None:
    if text is not None:
        Path(name).write_text(text)
    outcome = fastcls("recipe", "digits-cnn", "--config", name, "--print-config")
    assert outcome.code == code and said in outcome.output


def test_lists_and_verdicts_are_one_json_document(fastcls: Fastcls, digits_run: Path) -> None:
    Image.new("L", (8, 8)).save("digit.png")
    for words in (
        ["recipes"],
        ["runs", "--folder", str(digits_run.parent.parent)],
        ["runs", "show", str(digits_run)],
        ["runs", "diff", str(digits_run), str(digits_run)],
        ["models", "lcnet*"],
        ["cache"],
        ["doctor", "--quick"],
        ["predict", str(digits_run), "digit.png"],
    ):
        outcome = fastcls(*words, "--json")
        assert outcome.code == 0, outcome.output
        assert json.loads(outcome.stdout) is not None, words
    listed = json.loads(fastcls("runs", "--folder", str(digits_run.parent.parent), "--json").stdout)
    assert listed[0]["settings"]["recipe"] == "digits-cnn" and listed[0]["metrics"]["valid"]["accuracy"]["value"] > 0


@pytest.mark.usefixtures("unreported")
def test_the_same_command_again_resumes_ends_or_replaces(fastcls: Fastcls) -> None:
    words = ["recipe", "digits-cnn", "--limit", "8", "--filters", "4", "--epochs", "1", "--out", "r"]
    assert fastcls(*words, "--resume", "auto").code == 0
    first = Path("r/run.json").read_text()
    again = fastcls(*words)
    assert again.code == 4 and "--resume auto" in again.output and "--overwrite" in again.output
    assert "is finished" in fastcls(*words, "--resume", "auto").output and Path("r/run.json").read_text() == first
    other_seed = fastcls(*words, "--resume", "auto", "--seed", "3")
    assert other_seed.code == 2 and "started with a different --seed" in other_seed.output
    Path("killed").mkdir()  # before its run.json
    shutil.copy("r/recipe.py", "killed/recipe.py")
    Path("killed/.run.json-x1.json").write_text("{")
    assert fastcls(*words, "--out", "killed", "--resume", "auto").code == 0
    assert not Path("killed/.run.json-x1.json").exists() and Path("killed/run.json").is_file()
    Path("own").mkdir()  # which no run has begun
    Path("own/recipe.py").write_text("# my own")
    refused = fastcls(*words, "--out", "own", "--resume", "auto")
    assert refused.code == 4 and Path("own/recipe.py").read_text() == "# my own"
    other = fastcls(*words, "--resume", "auto", "--lr", "0.5")
    assert other.code == 2 and "a different --lr" in other.output
    assert fastcls(*words, "--overwrite").code == 0 and Path("r/run.json").read_text() != first
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    kept = fastcls(*words[:-1], "mine", "--overwrite")
    assert kept.code == 4 and Path("mine/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "line", ["recipe photos --epochs 3", "train photos --epochs 3", "recipe folder photos --epochs 3"]
)
def test_a_folder_in_a_recipes_place_or_after_it_is_the_folder_of_images(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    words, notes = translated(line.split(), commands())
    assert words == ["recipe", "folder", "--path", "photos", "--epochs", "3"] and notes

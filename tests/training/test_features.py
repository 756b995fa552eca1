"""What training can do beside its recipe: averaged weights, balanced drawing, stochastic depth, policies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Fastcls
from fastai.learner import Learner
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, accuracy, get_image_files, parent_label
from fastai.vision.core import TensorImage
from PIL import Image

from fastcls import data, models
from fastcls.data.dataloaders import PixelDL
from fastcls.errors import KnobError, UsageError
from fastcls.evaluation import metrics
from fastcls.models import networks
from fastcls.settings import options
from fastcls.settings.options import Options
from fastcls.training import averaging, best, objectives
from fastcls.training.epochs import Pace, seconds_of_epoch
from fastcls.training.history import Phase, quiet
from fastcls.transforms import batchwise, draws


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six images of one class and four of another."""
    folder = tmp_path_factory.mktemp("uneven")
    rng = np.random.default_rng(0)
    for i in range(40):
        file = folder / ("often" if i % 10 else "seldom") / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(file)
    return folder


def learner(folder: Path, balanced: bool = False) -> Learner:
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=get_image_files,
        get_y=parent_label,
        splitter=data.stratified(parent_label, 0.5),
    )
    with options.using(Options(seed=1, workers=0, precision="fp32")):
        dls = data.loaders(block, folder, bs=4, balanced=balanced)
        torch.manual_seed(0)
        return models.learner(dls, networks.cnn(3, 2, (4,)), metrics=accuracy)


def test_the_average_of_the_weights_is_validated_and_left_behind(uneven: Path) -> None:
    learn, seen = learner(uneven), {}

    class Watch(averaging.Callback):
        order = 100

        def after_step(self) -> None:
            weights = self.learn.model.state_dict()
            seen.setdefault("steps", []).append({name: value.clone().double() for name, value in weights.items()})

        def after_validate(self) -> None:
            seen["validated"] = {name: value.clone() for name, value in self.learn.model.state_dict().items()}

    average = {name: value.clone().double() for name, value in learn.model.state_dict().items()}
    with quiet(learn):
        learn.fit(2, 0.1, cbs=[*averaging.ema(0.8), Watch()])
    for n, weights in enumerate(seen["steps"], 1):
        decay = min(0.8, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    floats = [name for name, value in learn.model.state_dict().items() if value.is_floating_point()]
    for name in floats:
        for found in (seen["validated"], learn.model.state_dict()):
            assert torch.allclose(found[name].double(), average[name], atol=1e-5)
    assert not torch.allclose(learn.model.state_dict()[floats[0]].double(), seen["steps"][-1][floats[0]], atol=1e-5)


def test_balanced_loaders_draw_every_class_as_often(uneven: Path) -> None:
    def share(balanced: bool) -> float:
        dls = learner(uneven, balanced).dls
        assert isinstance(dls.train, PixelDL)
        labels = torch.cat([batch[1] for _ in range(20) for batch in dls.train])
        return float((labels == dls.vocab.o2i["seldom"]).float().mean())

    assert share(False) == pytest.approx(0.1, abs=0.02) and share(True) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda dls: averaging.ema(1.0),
        lambda dls: models.transfer_learner(dls, "resnet18", weights="none", drop_path=0.1),
    ],
    ids=["a decay of 1", "stochastic depth of a network without it"],
)
def test_what_cannot_be_is_refused(uneven: Path, wrong: Callable[[object], object]) -> None:
    with pytest.raises(UsageError, match=r"a decay must be|does not support stochastic depth"):
        wrong(learner(uneven).dls)


def test_stochastic_depth_is_timms(uneven: Path) -> None:
    learn = models.transfer_learner(learner(uneven).dls, "timm/test_resnet", weights="none", drop_path=0.2)
    shares = [module.drop_prob for module in learn.model.modules() if type(module).__name__ == "DropPath"]
    assert max(shares) == pytest.approx(0.2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["trivial", "rand"])
def test_a_policy_changes_most_images_and_each_in_its_own_way(name: batchwise.Policy, channels: int) -> None:
    image = torch.randint(0, 256, (1, channels, 16, 16), dtype=torch.uint8)
    (tfm,) = batchwise.policy(name)
    with draws.of(draws.Key(1, 0, np.arange(40))):
        changed = tfm(TensorImage(image.repeat(40, 1, 1, 1)), split_idx=0).as_subclass(torch.Tensor)
    assert changed.dtype == torch.uint8 and len({tuple(one.flatten().tolist()) for one in changed}) > 15


def test_training_goes_on_while_it_pays(uneven: Path) -> None:
    learn = learner(uneven)  # validated on 20 images: half a standard error of 0.5 is 0.056
    pace = Pace(learn, [Phase(1, "head only"), Phase(3, "whole network")])

    def rows(*accuracies: float) -> list[dict[str, float]]:
        return [{"accuracy": value} for value in accuracies]

    assert pace.further(rows(0.2, 0.3, 0.4, 0.5), []) == 2
    assert pace.further(rows(0.2, 0.3, 0.4, 0.5, 0.5, 0.7), [2]) == 2
    assert pace.further(rows(0.2, 0.3, 0.4, 0.5, 0.5, 0.55), [2]) == 0
    assert pace.further(rows(*(i / 100 for i in range(40))), [18, 18]) == 0  # ten times the recipe's, however it goes
    with pytest.raises(UsageError, match="does more than call"):
        Pace(learn, [])


def test_timing_an_epoch_leaves_the_learner_as_it_was(uneven: Path) -> None:
    learn = learner(uneven)
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    assert seconds_of_epoch(learn) > 0
    assert all(torch.equal(value, before[name]) for name, value in learn.model.state_dict().items())


def test_the_best_epoch_is_so_by_any_metric(uneven: Path) -> None:
    learn = learner(uneven)
    for name in ("accuracy", "valid_loss", "f1", "balanced_accuracy"):
        best.ensure(learn, name)
    with quiet(learn):
        learn.fit(1, 1e-9)
    assert learn.recorder.metric_names[4:6] == ["f1", "balanced_accuracy"]
    f1, balanced = learn.recorder.values[-1][3:5]
    assert 0 <= f1 < 0.6 and 0 <= balanced <= 1  # two classes, one of them hardly ever predicted
    with pytest.raises(KnobError, match="did you mean 'kappa'"):
        best.ensure(learn, "kapa")


@pytest.mark.parametrize(
    ("name", "key"), [("f1", "macro_f1"), ("precision", "macro_precision"), ("recall", "macro_recall")]
)
def test_an_epoch_is_judged_as_the_run_is_where_a_class_is_only_predicted(name: str, key: str) -> None:
    targets = np.array([0] * 10 + [1] * 10)
    predictions = np.array([0] * 9 + [2] + [1] * 8 + [0] * 2)
    metric = objectives.OneClass().criteria[name]()
    metric.reset()
    metric.accum_values(torch.tensor(predictions), torch.tensor(targets))
    assert metric.value == pytest.approx(metrics.figures(np.eye(3)[predictions], targets)[key]["value"])


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
@pytest.mark.parametrize("name", ["roc_auc", "top_k_accuracy"])
def test_a_figure_that_cannot_be_had_is_refused_before_there_is_a_run(
    fastcls: Fastcls, uneven: Path, name: str, dry: list[str]
) -> None:
    words = ["recipe", "folder", "--path", uneven, "--arch", "timm/test_resnet", "--weights", "none", "--size", 32]
    outcome = fastcls(*words, "--best-by", name, "--out", "run", *dry)
    assert outcome.code == 2 and f"--best-by {name}: " in outcome.output
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--time 1x", "expected hours, minutes, seconds"),
        ("--time 20m --epochs 3", "Use one of them"),
        ("--time 20m --epochs auto", "Use one of them"),
        ("--epochs automatic", "expected an integer"),
    ],
)
def test_how_long_to_train_is_said_in_one_way(fastcls: Callable, words: str, said: str) -> None:
    outcome = fastcls("recipe", "digits-cnn", *words.split())
    assert outcome.code == 2 and said in outcome.output


@pytest.mark.published
def test_a_run_fits_into_its_time(fastcls: Callable) -> None:
    outcome = fastcls("recipe", "digits-cnn", "--time", "9s", "--limit", 20, "--out", "run")
    record = json.loads(Path("run/run.json").read_text())
    epochs = record["knobs"]["fit"]["epochs"]
    assert outcome.code == 0 and f"--epochs {epochs}:" in outcome.output
    assert len(Path("run/history.csv").read_text().splitlines()) == epochs + 1
    assert -0.1 <= 9 / record["epochs_chosen"]["epoch_seconds"] - epochs <= 1.1  # a tenth for rounding
    outcome = fastcls("recipe", "digits-cnn", "--time", "0.001s", "--limit", 20, "--out", "other")
    assert outcome.code == 2 and "1 epoch of this recipe take" in outcome.output

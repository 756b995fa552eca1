"""The fast step takes the steps that fastai takes, in the precision that was asked for."""

from __future__ import annotations

import copy
import html
import os
import platform
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Fastcls, python
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import SGD
from torch import nn

from fastcls.errors import EnvironmentProblem
from fastcls.machine import flops
from fastcls.runfolder import runs
from fastcls.settings import options
from fastcls.settings.options import Options
from fastcls.training import patches, step
from fastcls.training.history import quiet
from fastcls.training.optimizers import OPTIMIZERS, FusedSGD, optimizer
from fastcls.transforms import mixing

pytestmark = pytest.mark.usefixtures("one_thread")


class Batches:
    """A loader of the same few batches every epoch."""

    def __init__(self, count: int, bs: int, shape: tuple[int, ...] = (6,)) -> None:
        random = torch.Generator().manual_seed(0)
        self.batches = [
            (torch.randn(bs, *shape, generator=random), torch.randint(0, 3, (bs,), generator=random))
            for _ in range(count)
        ]
        self.bs, self.dataset, self.device = bs, (), torch.device("cpu")

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def learner(model: nn.Module, count: int = 5, bs: int = 8, shape: tuple[int, ...] = (6,), **kwargs: Any) -> Learner:
    loaders = DataLoaders(Batches(count, bs, shape), Batches(1, bs, shape), device=torch.device("cpu"))
    return Learner(loaders, model, loss_func=CrossEntropyLossFlat(), **kwargs)


def net() -> nn.Module:
    torch.manual_seed(0)  # no bias before the batch norm: its gradient would be rounding alone, which Adam magnifies
    return nn.Sequential(nn.Linear(6, 10, bias=False), nn.BatchNorm1d(10), nn.ReLU(), nn.Linear(10, 3))


def split(model: nn.Sequential) -> list[list[nn.Parameter]]:
    return [list(model[:2].parameters()), list(model[2:].parameters())]


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


PAIRS = {  # ours, fastai's
    "adam with L2": OPTIMIZERS["adam"],
    "adamw": OPTIMIZERS["adamw"],
    "sgd with decoupled decay": OPTIMIZERS["sgd"],
    "sgd with L2": (partial(FusedSGD, decouple_wd=False), partial(SGD, mom=0.9, decouple_wd=False)),
    "sgd without momentum": (partial(FusedSGD, mom=0.0), partial(SGD, mom=0.0)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("frozen", [False, True], ids=["whole network", "head only"])
def test_fused_optimisers_take_fastais_steps(name: str, frozen: bool) -> None:
    after = []
    for opt_func in PAIRS[name]:
        learn = learner(net(), opt_func=opt_func, splitter=split, wd=0.1)
        if frozen:
            learn.freeze()
        with quiet(learn):
            learn.fit_one_cycle(4, slice(1e-3, 1e-2)) if "without" not in name else learn.fit(4, slice(1e-3, 1e-2))
        after.append(weights(learn.model))
    start, first = weights(net()), 6 * 10
    assert torch.allclose(*after, atol=1e-6) and not torch.allclose(after[0], start, atol=1e-3)
    assert torch.equal(after[0][:first], start[:first]) == frozen


@pytest.mark.parametrize("exempt", [False, True], ids=["all decay", "bias and batch norm exempt"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weight_decay_spares_what_fastai_spares(name: str, exempt: bool) -> None:
    after = []
    for opt_func in OPTIMIZERS[name]:
        learn = learner(net(), opt_func=opt_func, wd=5.0, wd_bn_bias=not exempt)
        with quiet(learn):
            learn.fit(4, 1e-2)
        after.append(weights(learn.model))
    assert torch.allclose(*after, atol=1e-6)


def test_fused_is_the_default_and_no_fused_is_fastais() -> None:
    assert optimizer("adamw") is OPTIMIZERS["adamw"][0]
    with options.using(Options(fused=False)):
        assert optimizer("adamw") is OPTIMIZERS["adamw"][1]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_fused_optimiser_goes_on_from_its_saved_state(name: str) -> None:
    learn = learner(net(), opt_func=OPTIMIZERS[name][0], splitter=split)
    with quiet(learn):
        learn.fit(1, 1e-2)
        state, model = copy.deepcopy(learn.opt.state_dict()), copy.deepcopy(learn.model)
        learn.fit(1, 1e-2, reset_opt=False)
        again = learner(model, opt_func=OPTIMIZERS[name][0], splitter=split)
        again.create_opt()
        again.opt.load_state_dict(state)
        again.fit(1, 1e-2)
    assert torch.equal(weights(learn.model), weights(again.model))


def test_accumulated_halves_step_as_the_whole_batch_does() -> None:
    def trained(count: int, bs: int, accumulate: int) -> torch.Tensor:
        torch.manual_seed(0)
        whole = Batches(4, 8)
        learn = learner(nn.Linear(6, 3), count, bs)
        if accumulate > 1:
            halves = [(x[i : i + 4], y[i : i + 4]) for x, y in whole.batches for i in (0, 4)]
            learn.dls.train.batches = halves
        learn.dls.vocab = ["a", "b", "c"]
        with options.using(Options(accumulate=accumulate, precision="fp32")), quiet(learn):
            step.configure(learn)
            learn.fit(1, 1e-2)
        return weights(learn.model)

    assert torch.allclose(trained(4, 8, 1), trained(8, 4, 2), atol=1e-6)


@pytest.mark.usefixtures("unreported")
def test_more_batches_to_accumulate_than_a_fit_has_are_refused(fastcls: Fastcls) -> None:
    """fastai would take no step, and the run would report an untrained network's figures."""
    words = ["recipe", "digits-cnn", "--limit", 10, "--filters", 4, "--epochs", 1, "--bs", 20]
    outcome = fastcls(*words, "--accumulate", 50, "-o", "run")
    assert outcome.code == 2 and "no step would be taken" in " ".join(outcome.output.split()), outcome.output
    assert fastcls(*words, "--accumulate", 2, "-o", "enough").code == 0


def gradient_norms(clip: float | None) -> list[float]:
    """Of every step of a short training."""
    norms: list[float] = []

    class Watch(Callback):
        order = 100

        def before_step(self) -> None:
            norms.append(float(torch.stack([p.grad.norm() for p in self.model.parameters()]).norm()))

    learn = learner(net())
    with options.using(Options(clip=clip, precision="fp32")), quiet(learn):
        step.configure(learn)
        learn.fit(1, 1e-2, cbs=Watch())
    return norms


def test_clipping_bounds_the_gradient() -> None:
    assert max(gradient_norms(0.01)) <= 0.01 * 1.001 and min(gradient_norms(None)) > 0.01


def test_bf16_trains_fp32_weights_in_bf16_and_validates_in_fp32() -> None:
    kinds = set()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 3))
    model[0].register_forward_hook(lambda conv, _, out: kinds.add((conv.training, out.dtype)))
    learn = learner(model, shape=(1, 6, 6))
    with options.using(Options(precision="bf16")), quiet(learn):
        step.configure(learn)
        learn.fit(1, 1e-3)
        learn.get_preds(dl=learn.dls.valid)
    assert kinds == {(True, torch.bfloat16), (False, torch.float32)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_the_precision_is_chosen_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    learn = learner(net())
    with options.using(Options(precision="fp32")):
        assert step.precision(learn) == ("fp32", "")
    with options.using(Options(precision="fp16")), pytest.raises(EnvironmentProblem, match="CUDA") as caught:
        step.precision(learn)
    assert "bf16" in caught.value.hint
    monkeypatch.setattr(step, "_native_bf16", lambda: False)
    assert step.precision(learn) == ("fp32", "this processor has no bf16")


@pytest.mark.parametrize(
    ("channels", "groups", "chosen", "why"),
    [
        (16, 1, "fp32", "a small network: 16 million operations per image"),
        (128, 1, "bf16", "native on this device; 127 million operations per image"),
        (384, 384, "fp32", "depthwise convolutions, 100% of its operations, are slow in bf16"),
    ],
)
def test_a_cpu_with_bf16_takes_it_for_a_large_network(
    channels: int, groups: int, chosen: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = 144 if groups > 1 else 12
    learn = learner(nn.Conv2d(3 * 128, channels, 3, padding=1, groups=groups), shape=(1, 3, 12, 12))
    monkeypatch.setattr(step, "_native_bf16", lambda: True)
    monkeypatch.setattr(step, "input_example", lambda _: torch.zeros(1, 3 * 128, side, side))
    assert step.precision(learn) == (chosen, why)


FAULTS = """
import resource
from fastcls.machine import host
host.keep_freed()
for _ in range(20):
    b"x" * 50_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise() -> None:
    def faults(**settings: str) -> int:
        return int(python("-c", FAULTS, env=settings).stdout)

    pages = 20 * 50_000_000 / os.sysconf("SC_PAGE_SIZE")
    assert faults() < pages / 4
    for settings in ({"FASTCLS_KEEP_MEMORY": "0"}, {"MALLOC_MMAP_THRESHOLD_": "131072"}):
        assert faults(**settings) > pages / 2


def test_memory_is_given_back_where_the_process_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([1.0, 1.2, 1.3, 2.0, 2.4, 2.6])
    asked: list[float] = []
    monkeypatch.setattr(step.host, "resident", lambda: asked.append(next(sizes)) or asked[-1])
    monkeypatch.setattr(step.host, "give_back", lambda: asked.append(0.0))
    callback = step.Heap()
    for _ in range(6 * step.Heap.every):
        callback.after_batch()
    assert asked == [1.0, 1.2, 1.3, 0.0, 2.0, 2.4, 2.6, 0.0]


def test_losses_kept_on_the_device_are_those_that_fastai_records() -> None:
    recorded = []
    for cbs in ([], [patches.OnDevice()]):
        learn = learner(net(), cbs=cbs)
        with quiet(learn):
            learn.fit(2, 1e-2)
        recorded.append([float(loss) for loss in learn.recorder.losses] + list(learn.recorder.final_record))
    assert recorded[0] == pytest.approx(recorded[1])


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_is_the_same_in_every_run_of_a_seed(name: str) -> None:
    after = []
    for _ in range(2):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
        torch.manual_seed(len(after))
        learn = learner(model, shape=(1, 6, 6))
        with quiet(learn):
            learn.fit(1, 1e-2, cbs=mixing.mix(**{name: 0.4}))
        after.append(weights(model))
    assert torch.equal(*after)


def test_the_operations_of_a_convolution_are_counted() -> None:
    conv = nn.Conv2d(4, 8, 3, padding=1)
    forward = 2 * 8 * 4 * 9 * 10 * 10
    image = torch.randn(1, 4, 10, 10)
    assert flops.forward_flops(conv, image) == (forward, 0)
    depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    assert flops.forward_flops(depthwise, image) == (forward / 8, forward / 8)
    assert flops.forward_flops(nn.Sequential(depthwise, conv), image) == (forward / 8 + forward, forward / 8)


def test_the_run_says_what_it_computed_in_and_how_fast(digits_run: Path) -> None:
    record, log = runs.read_json(digits_run / "run.json"), (digits_run / "log.txt").read_text()
    (device,) = (line for line in log.splitlines() if "device   " in line)
    assert "fp32 (a small network" in device or "fp32 (this processor has no bf16)" in device or "this GPU" in device
    assert record["command"].endswith(f"--precision {record['options']['precision']}")
    assert record["command"] in html.unescape((digits_run / "report.html").read_text())
    assert "images/s in training" in log and record["speed"]["images_per_second"] > 0


def test_wrong_settings_are_all_named_at_once(fastcls: Fastcls) -> None:
    words = ["--accumulate", "0", "--clip", "-1", "--cache-gb", "-1", "--compile", "fast"]
    outcome = fastcls("recipe", "digits-cnn", *words)
    assert outcome.code == 2
    assert all(word in outcome.output for word in words[::2])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_run_notes_what_compiling_took(fastcls: Fastcls, tmp_path: Path) -> None:
    words = ["--epochs", "2", "--limit", "20", "--filters", "8", "--compile", "default", "--out", tmp_path / "run"]
    outcome = fastcls("recipe", "digits-cnn", *words)
    assert (
        outcome.code == 0 and "including compilation" in outcome.output and (tmp_path / "run" / "model.onnx").is_file()
    )


def test_events_reach_the_callbacks_that_fastai_calls_in_its_order_and_the_learner_is_itself_afterwards() -> None:
    class Heard(Callback):
        def __init__(self, order: int, into: list[tuple[int, str]], **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.order, self.into = order, into

        def after_loss(self) -> None:
            self.into.append((self.order, "after_loss"))

        def after_batch(self) -> None:
            self.into.append((self.order, "after_batch"))
            if self.order == 3 and self.training and self.iter == 2:
                self.learn.add_cb(Heard(7, self.into))

    class Quiet(Callback):
        run = False

        def after_batch(self) -> None:
            raise AssertionError("it is not to run")

    def heard(configured: bool) -> tuple[list[tuple[int, str]], dict[str, torch.Tensor], Learner]:
        into: list[tuple[int, str]] = []
        torch.manual_seed(0)
        learn = learner(nn.Linear(6, 3), opt_func=SGD)
        if configured:
            with options.using(Options(precision="fp32")):
                step.configure(learn)
        learn.add_cbs([Heard(60, into), Heard(3, into), Heard(3, into), Quiet()])
        learn.add_cb(Callback(before_step=lambda self: into.append((0, "before_step"))))
        with quiet(learn):
            learn.fit(2, 0.1)
        return into, learn.model.state_dict(), learn

    (ours, weights, learn), (fastais, others, _) = heard(True), heard(False)
    assert ours == fastais and len(ours) > 60 and all(torch.equal(weights[name], others[name]) for name in others)
    assert "_call_one" not in vars(learn) and "_contiguous" not in vars(learn.loss_func)

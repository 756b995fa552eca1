"""Weights as timm, torchvision, the Hub and our runs write them, sizes that networks take, files that do not fit."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import REAL, Fastcls
from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock
from photographs import loaders
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model, get_model_builder, get_model_weights, list_models

from fastcls import data, models, transforms
from fastcls.errors import FastclsError, OutputError, UsageError, WeightsError
from fastcls.models import backbones, pretrained, stages
from fastcls.models import weights as weight_files
from fastcls.runfolder import model_files
from fastcls.settings import options

SIZE = 64
TINY = {"depth": 2, "embed_dim": 48, "num_heads": 3}  # small members of families that have none
FAMILIES: dict[str, dict[str, Any]] = {
    **{arch: {} for arch in ("mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "squeezenet1_1")},
    **{arch: {} for arch in ("shufflenet_v2_x0_5", "timm/mobilenetv2_050", "timm/mobilenetv3_small_050")},
    **{arch: {} for arch in ("timm/efficientnet_lite0", "timm/regnetx_002", "timm/test_resnet", "timm/test_vit4")},
    "timm/densenet121": {"growth_rate": 4, "block_config": (2, 2, 2, 2)},
    "timm/convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)},
    "timm/vit_small_patch14_dinov2": TINY,
    "timm/vit_base_patch16_siglip_256": TINY,
    "timm/swin_tiny_patch4_window7_224": {"depths": (1, 2, 1, 1), "embed_dim": 12, "num_heads": (1, 2, 3, 4)},
    "timm/deit_tiny_distilled_patch16_224": TINY,
}
LARGE = ["resnet18", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_32", "swin_t", "vgg11", "timm/vgg11"]
PREFIXES = ["", "model.", "module.", "state_dict.backbone.", "0.", "0.model."]


def published(arch: str, **kwargs: Any) -> nn.Module:
    """A network as its library builds it, with its classifier, for images of SIZE; every tensor random."""
    torch.manual_seed(0)
    found = backbones.find(arch)
    if found.library == "timm":
        fixed = timm.get_pretrained_cfg(found.name).fixed_input_size
        network = timm.create_model(found.name, **({"img_size": SIZE} if fixed else {}), **kwargs)
    else:
        network = get_model(found.name, **({"image_size": SIZE} if found.name.startswith("vit_") else {}))
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.rand_like(tensor))
    return network.eval()


def features_before_the_classifier(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the last layer of a whole network is given: the features that a body has to give."""
    if hasattr(network, "forward_head"):
        return network.forward_head(network.forward_features(images), pre_logits=True)
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    found: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    network(images)
    hook.remove()
    return found[0].mean((2, 3)) if found[0].ndim == 4 else found[0]  # SqueezeNet pools after its convolution


@pytest.mark.parametrize("arch", [*FAMILIES, *(pytest.param(arch, marks=pytest.mark.slow) for arch in LARGE)])
def test_a_published_file_gives_the_features_of_the_network_that_saved_it(tmp_path: Path, arch: str) -> None:
    kwargs = FAMILIES.get(arch, {})
    network, images = published(arch, **kwargs), torch.rand(2, 3, SIZE, SIZE)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    found = backbones.find(arch)
    filter_fn = pretrained.timm_filter(found.name) if found.library == "timm" else None
    body = backbones.build(found, False, 3, [(SIZE, SIZE)], (224, 224), **kwargs).body.eval()
    headless = {name: state[name] for name in body.state_dict()}
    with torch.no_grad():
        wanted = features_before_the_classifier(network, images)
        for tensors, prefix in [*((state, prefix) for prefix in PREFIXES), (headless, ""), (headless, "model.")]:
            save_file({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "w.safetensors")
            for tensor in body.state_dict().values():
                tensor.zero_()
            _, new = pretrained.load(body, tmp_path / "w.safetensors", arch, filter_fn, str)
            assert not new
            torch.testing.assert_close(body(images), wanted, atol=1e-5, rtol=1e-5)


def write(
    arch: str, file: Path, change: Callable[[dict[str, Any]], object] = lambda state: None, **kwargs: Any
) -> nn.Module:
    network = published(arch, **kwargs)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    change(state)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file)
    return network


def learned(dls: Any, arch: str, weights: Any, **kwargs: Any) -> tuple[Any, str]:
    """A Learner, and the lines that were said while it was built."""
    with options.using(options.Options()) as notes:
        learn = models.transfer_learner(dls, arch, weights=str(weights), **kwargs)
    learn.model.eval()
    return learn, "\n".join(notes)


DAMAGED = {"cut short": b"PK\x03\x04" + bytes(2000), "empty": b"", "a web page": b"<html>Sign in</html>"}


@pytest.mark.parametrize("arch", ["timm/test_resnet", "timm/efficientnet_lite0", "regnet_y_400mf"])
def test_features_may_be_the_mean_of_average_and_maximum(photos: Path, tmp_path: Path, arch: str) -> None:
    network = write(arch, tmp_path / "w.safetensors")
    learn, said = learned(loaders(photos, SIZE), arch, tmp_path / "w.safetensors", pool="avgmax")
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        timms = hasattr(network, "forward_features")
        maps = network.forward_features(images) if timms else network.trunk_output(network.stem(images))
        expected = (maps.mean((2, 3)) + maps.amax((2, 3))) / 2
        torch.testing.assert_close(learn.model[0](images), expected, rtol=1e-4, atol=1e-5)
    assert "mean of average and maximum" in said and learn.pool == "avgmax"


@pytest.mark.parametrize("arch", ["timm/convnext_atto", "timm/test_vit4", "mobilenet_v2"])
def test_features_that_are_no_mean_of_maps_stay_as_they_are(photos: Path, tmp_path: Path, arch: str) -> None:
    write(arch, tmp_path / "w.safetensors", **FAMILIES[arch])
    given = loaders(photos, SIZE), arch, tmp_path / "w.safetensors"
    images = torch.rand(2, 3, SIZE, SIZE)
    own, said = learned(*given, pool="avgmax", **FAMILIES[arch])
    with torch.no_grad():
        assert torch.equal(own.model[0](images), learned(*given, **FAMILIES[arch])[0].model[0](images))
    assert "maximum" not in said and own.pool == "own"


@pytest.mark.unpickles
@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_weights_in_the_libraries_caches_are_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = get_model_weights("squeezenet1_1").DEFAULT.url
    kept = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        learned(loaders(photos, SIZE), "squeezenet1_1", "imagenet")
    assert str(kept) in caught.value.message and "Remove it" in caught.value.hint


def test_a_cache_of_weights_that_cannot_be_made_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", "/proc/none")
    with pytest.raises(WeightsError, match="cannot be saved in /proc/none") as caught:
        learned(loaders(photos, SIZE), "squeezenet1_1", "imagenet")
    assert "TORCH_HOME" in caught.value.hint


def test_a_network_with_a_versioned_state_comes_back(tmp_path: Path) -> None:
    network, other = get_model("mnasnet0_5"), get_model("mnasnet0_5")
    weight_files.save(network, tmp_path / "w.safetensors")
    weight_files.load(other, tmp_path / "w.safetensors")
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


# ------------------------------------------------------------------ what is said, and what images become


def test_the_configuration_of_the_weights_decides_how_images_are_prepared(photos: Path, tmp_path: Path) -> None:
    write("timm/test_vit", tmp_path / "w.safetensors")
    learn, said = learned(loaders(photos, SIZE, min_scale=0.4), "timm/test_vit", tmp_path / "w.safetensors")
    assert "tensors, none new); the head is new" in said
    assert "bicubic resizing and crop share 0.95 are those of timm's test_vit" in said
    spec = learn.dls.plan.finished
    assert (spec["method"], spec["interpolation"], spec["resize"], spec["size"]) == (
        "crop",
        "bicubic",
        [67] * 2,
        [64] * 2,
    )
    assert learn.dls.plan.crop.mode == "bicubic"
    whole, _ = learned(loaders(photos, SIZE), "timm/test_vit", tmp_path / "w.safetensors")
    assert whole.dls.plan.finished["resize"] == [64, 64], "images are whole in training: so they are in validation"


@pytest.mark.parametrize("min_scale", [1.0, 0.4])
@pytest.mark.parametrize("squash", [False, True])
def test_predict_sees_the_bicubic_pixels_of_validation(
    photos: Path,
    tmp_path: Path,
    min_scale: float,
    squash: bool,
) -> None:
    from fastcls.data.describe import describe_preprocessing
    from fastcls.images import preprocessing

    write("timm/test_resnet", tmp_path / "net" / "model.safetensors")
    cfg = {"mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic", "crop_pct": 0.8}
    cfg["crop_mode"] = "squash" if squash else "center"
    text = {"architecture": "test_resnet", "pretrained_cfg": cfg}
    (tmp_path / "net" / "config.json").write_text(json.dumps(text))
    learn, said = learned(loaders(photos, SIZE, min_scale=min_scale), "timm/test_resnet", tmp_path / "net")
    assert "config.json" in said and "crop share 0.8" in said
    spec = json.loads(json.dumps(describe_preprocessing(learn.dls)))
    assert spec["interpolation"] == "bicubic" and spec["mean"] == pytest.approx([0.4] * 3)
    assert not model_files.problem_of(spec)
    files = list(learn.dls.valid_ds.items)
    ours = np.stack([preprocessing.load(file, spec) for file in files])
    theirs = [learn.dls.valid.new(shuffle=False, bs=len(files)), learn.dls.test_dl(files, bs=len(files))]
    for loader in theirs:
        np.testing.assert_allclose(ours, loader.one_batch()[0].numpy(), atol=1e-5)
    learn.dls.valid.before_iter()
    by_fastai = learn.dls.valid.after_item(learn.dls.valid_ds[0])[0]  # as fastai itself goes through its transforms
    np.testing.assert_array_equal(by_fastai.permute(1, 2, 0).numpy(), preprocessing.prepare(files[0], spec))


def test_a_resize_of_the_users_own_stays(photos: Path, tmp_path: Path) -> None:
    from fastai.vision.augment import Resize

    write("timm/test_vit", tmp_path / "w.safetensors")
    learn, said = learned(loaders(photos, SIZE, item_tfms=Resize(SIZE)), "timm/test_vit", tmp_path / "w.safetensors")
    assert learn.dls.plan.finished["interpolation"] == "bilinear" and "crop share" not in said
    assert "normalisation are those of timm's test_vit" in said


def test_a_folder_of_the_hub_is_an_architecture_and_a_source_of_weights(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, hash = tmp_path / "hub", "0" * 40
    snapshot = home / "models--me--mine" / "snapshots" / hash
    network = write("timm/test_vit", snapshot / "model.safetensors")
    cfg = {"architecture": "test_vit", "model_args": {"img_size": SIZE}, "pretrained_cfg": {"mean": [0.3] * 3}}
    (snapshot / "config.json").write_text(json.dumps(cfg))
    (home / "models--me--mine" / "refs").mkdir()
    (home / "models--me--mine" / "refs" / "main").write_text(hash)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    images = torch.rand(2, 3, SIZE, SIZE)
    for arch, weights in [
        ("hf-hub:me/mine", "imagenet"),
        (f"local-dir:{snapshot}", "imagenet"),
        ("timm/test_vit", "hf-hub:me/mine"),
        ("timm/test_vit", home / "models--me--mine"),
        ("timm/test_vit", snapshot),
    ]:
        learn, said = learned(loaders(photos, SIZE), arch, weights)
        assert "none new" in said and "config.json" in said
        with torch.no_grad():
            torch.testing.assert_close(
                learn.model[0](images), features_before_the_classifier(network, images), atol=1e-5, rtol=1e-5
            )
    with pytest.raises(WeightsError, match="me/other: the Hub cannot be reached") as unreachable:
        backbones.find("hf_hub:me/other")
    assert unreachable.value.exit_code == 5, "the data are not to blame"
    with pytest.raises(UsageError, match="no such repository"):
        backbones.find("hf-hub:me/other/too")
    (snapshot / "config.json").write_text(json.dumps({"architectures": ["Dinov2Model"], "model_type": "dinov2"}))
    with pytest.raises(OutputError, match="does not name a timm architecture"):
        backbones.find("hf-hub:me/mine")


def test_position_embeddings_and_stems_are_made_to_fit(photos: Path, tmp_path: Path) -> None:
    for arch in ("timm/vit_tiny_patch16_224", "timm/vit_small_patch14_dinov2"):
        network = write(arch, tmp_path / "w.safetensors", **TINY)
        learn, said = learned(loaders(photos, 112, gray=True), arch, tmp_path / "w.safetensors", **TINY)
        assert "none new" in said and learn.model[0](torch.rand(1, 1, 112, 112)).shape == (1, 48)
        stem, own = (next(m for m in n.modules() if isinstance(m, nn.Conv2d)) for n in (network, learn.model[0]))
        torch.testing.assert_close(own.weight, stem.weight.sum(1, keepdim=True))


def test_hidden_layers_of_a_classifier_may_be_new(photos: Path, tmp_path: Path) -> None:
    def without(state: dict[str, Any]) -> None:
        for name in [name for name in state if name.startswith("classifier.")]:
            del state[name]

    write("mobilenet_v3_small", tmp_path / "w.safetensors", without)
    _, said = learned(loaders(photos, SIZE), "mobilenet_v3_small", tmp_path / "w.safetensors")
    assert "2 new (classifier.0.weight, classifier.0.bias)" in said


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("arch", "size", "taken"),
    [
        ("timm/vit_tiny_patch16_224", 64, 64),
        pytest.param("vit_b_32", 96, 96, marks=pytest.mark.slow),
        ("timm/vit_tiny_patch16_224", 8, 224),
        ("timm/test_vit", 48, 48),
        ("timm/test_maxvit", 100, 160),
    ],
)
def test_networks_of_one_size_take_another_or_their_own(photos: Path, arch: str, size: int, taken: int) -> None:
    learn, said = learned(loaders(photos, size), arch, "none")
    for loader in (learn.dls.train, learn.dls.valid):
        images = loader.one_batch()[0]
        assert images.shape[2:] == (taken, taken) and learn.model(images).shape[1] == 3
    assert (f"only accepts images of {taken} × {taken} pixels" in said) == (size != taken)


def families() -> list[str]:
    """A small member of every family of both libraries."""
    words = [
        "test_",
        "atto",
        "femto",
        "pico",
        "nano",
        "xx",
        "tiny",
        "b0",
        "s0",
        "18",
        "050",
        "_002",
        "_x0",
        "small",
        "",
    ]
    members: dict[str, list[str]] = {f"timm/{name}": timm.list_models(module=name) for name in timm.list_modules()}
    for name in list_models(module=torchvision.models):
        members.setdefault(get_model_builder(name).__module__, []).append(name)

    def rank(name: str) -> tuple[int, int]:
        return next(place for place, word in enumerate(words) if word in name), len(name)

    return [f"{'timm/' * (key[:5] == 'timm/')}{min(names, key=rank)}" for key, names in members.items() if names]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arch", families())
def test_a_member_of_every_family_takes_images_and_has_stages(arch: str) -> None:
    found = backbones.find(arch)
    own = pretrained.config(found.library, found.name).size
    for size in (224, 160):
        try:
            with torch.device("meta"):
                body, n_features, instead = backbones.build(found, False, 3, [(size, size)], own)
        except (NotImplementedError, RuntimeError, FastclsError):  # it computes with its weights while it is built
            body, n_features, instead = backbones.build(found, False, 3, [(size, size)], own)
        assert n_features > 16 and instead in (None, own)
        parameters = [p for _, group in stages.stages(body) for p in group]
        assert len(parameters) == len(set(parameters)) == len(list(body.parameters()))
        assert 2 <= len(stages.stages(body)) <= 60


def test_sizes_that_no_network_takes_are_refused_with_what_would_be(photos: Path) -> None:
    for size in (0, 10_000):
        with pytest.raises(UsageError, match=f"Cannot train on images of {size} × {size} pixels"):
            loaders(photos, size)
    with pytest.raises(UsageError, match=r"alexnet does not accept images of 32 × 32 pixels.*\n.*size=64 or more"):
        models.transfer_learner(loaders(photos, 32), "alexnet", weights="none")
    with pytest.raises(UsageError, match="only accepts images of 224 × 224 pixels"):
        from fastai.vision.augment import Resize

        models.transfer_learner(loaders(photos, item_tfms=Resize(8)), "timm/vit_tiny_patch16_224", weights="none")


# ------------------------------------------------------------------ files that do not fit


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def not_finite(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    file.write_bytes(data)


def a_pickle(file: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, file)


SPOILT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut short": ("timm/test_resnet", cut, "not a readable .safetensors file"),
    "not finite": ("timm/test_resnet", not_finite, "contains NaN or infinite values"),
    "a pickle": ("timm/test_resnet", a_pickle, "not a readable .safetensors file"),
    "a larger network": (
        "timm/test_resnet",
        lambda file: write("timm/test_resnet", file, layers=(2, 2, 2, 2)),
        "does not fit",
    ),
    "another family": ("timm/test_resnet", lambda file: write("timm/mobilenetv3_small_050", file), "does not fit"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_file_that_does_not_fit_is_refused_in_a_line(fastcls: Fastcls, photos: Path, kind: str) -> None:
    arch, spoil, message = SPOILT[kind]
    write(arch, Path("w.safetensors"))
    spoil(Path("w.safetensors"))
    words = ["--path", photos, "--arch", arch, "--size", 32, "--weights", "w.safetensors", "--out", "run"]
    outcome = fastcls("recipe", "folder", *words)
    assert outcome.code == 4 and "w.safetensors" in outcome.output and message in outcome.output, outcome.output
    assert "Traceback" not in outcome.output and not Path("run").exists()


def test_what_a_file_fits_is_offered(photos: Path, tmp_path: Path) -> None:
    write("resnet34", tmp_path / "w.safetensors")
    with pytest.raises(OutputError, match=r"it has \d+ extra tensors(.|\n)*It fits  arch resnet34"):
        learned(loaders(photos), "resnet18", tmp_path / "w.safetensors")
    write("timm/efficientnet_lite0", tmp_path / "efficientnet_lite0.safetensors")
    with pytest.raises(OutputError, match="It fits  arch efficientnet_lite0"):
        learned(loaders(photos), "timm/resnet18", tmp_path / "efficientnet_lite0.safetensors")


# ------------------------------------------------------------------ the two real files


IMAGENETTE = (
    0,
    217,
    482,
    491,
    497,
    566,
    569,
    571,
    574,
    701,
)  # its classes among ImageNet's 1000, in the order of names


def real(name: str) -> Path:
    if not (file := REAL / f"{name}.safetensors").is_file():
        pytest.skip(f"needs the pretrained weights of ../shared/data/{file.name}")
    return file


def photographs(folder: Path, label: Callable[[Path], str], a_class: int, size: int, classes: int = 10) -> Any:
    """The first photographs of each of about so many classes, as many in training as in validation."""
    files = sorted(folder.rglob("*.[jJ][pP]*"))
    names = sorted({*map(label, files)})
    names = names[:: len(names) // classes]
    every = {name: [file for file in files if label(file) == name][: 2 * a_class] for name in names}
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_items=lambda _: [file for group in every.values() for file in group],
        get_y=label,
        splitter=data.stratified(label, 0.5),
        item_tfms=transforms.resize(size, 0.35),
    )
    return data.loaders(block, folder, bs=20)


@pytest.mark.published
def test_the_published_classifier_recognises_photographs(imagenette: Path) -> None:
    file = real("tf_efficientnet_lite0")
    dls = photographs(imagenette / "val", lambda path: path.parent.name, 5, 224)
    learn, said = learned(dls, "tf_efficientnet_lite0", file)
    assert "294 tensors, none new" in said and "bicubic resizing and crop share 0.875" in said
    head = load_file(file)
    with torch.no_grad():
        found = [(learn.model[0](x) @ head["classifier.weight"].T + head["classifier.bias"], y) for x, y in dls.valid]
    logits, y = (torch.cat(parts).as_subclass(torch.Tensor) for parts in zip(*found, strict=True))
    ten = torch.tensor(IMAGENETTE)
    assert len(y) == 50 and (logits.argmax(1) == ten[y]).float().mean() > 0.5, "of 1000 classes, at 160 pixels"
    assert (logits[:, ten].argmax(1) == y).float().mean() > 0.9


@pytest.mark.published
@pytest.mark.parametrize("arch", ["tf_efficientnet_lite0", "mobilenet_v2"])
def test_features_of_published_weights_separate_breeds(pets: Path, arch: str) -> None:
    dls = photographs(pets, lambda path: path.stem.rpartition("_")[0], 5, 224, 12)
    learn, _ = learned(dls, arch, real(arch))
    split = []
    with torch.no_grad():
        for loader in (dls.valid.new(dataset) for dataset in (dls.train_ds, dls.valid_ds)):
            found = [(nn.functional.normalize(learn.model[0](x)), y) for x, y in loader]
            split.append([torch.cat(parts) for parts in zip(*found, strict=True)])
    (known, names), (asked, wanted) = split
    centres = torch.stack([known[names == name].mean(0) for name in range(dls.c)])
    right = float(((asked @ centres.T).argmax(1) == wanted).float().mean())
    assert right > 0.8, f"nearest mean of five: {right:.1%} of {len(wanted)} images, {dls.c} breeds"

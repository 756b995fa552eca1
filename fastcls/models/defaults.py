"""Pretrained networks by a word: what `--arch small`, `base` and `large` name. The choice is in docs/networks.md.

A name ends in the tag of its weights, so that a later default of timm's changes nothing. top-1 is ImageNet's, in %, as
timm publishes it (results/results-imagenet.csv).
"""

from __future__ import annotations

# from the cheapest to the most accurate, 288 pixels (the first: 224)
PUBLISHED = {
    "timm/mobilenetv3_large_100.miil_in21k_ft_in1k": 77.9,
    "timm/convnext_nano.in12k_ft_in1k": 82.9,
    "timm/convnext_tiny.in12k_ft_in1k": 84.5,
    "timm/convnext_small.in12k_ft_in1k": 85.3,
    "timm/convnext_base.fb_in22k_ft_in1k": 86.3,
}
WORDS = {
    "small": "timm/mobilenetv3_large_100.miil_in21k_ft_in1k",
    "base": "timm/convnext_nano.in12k_ft_in1k",
    "large": "timm/convnext_small.in12k_ft_in1k",
}


def resolve(name: str) -> str:
    """The full name for small, base or large; `hf_hub:` as timm writes it now; any other name unchanged."""
    return WORDS.get(name, name).replace("hf_hub:", "hf-hub:", 1)

"""Networks and their Learners: pretrained ones of torchvision and timm, and networks of our own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "learners": [
            "FreezeStatistics",
            "channels",
            "fit_head",
            "imagenet_stats",
            "learner",
            "normalize",
            "transfer_learner",
            "xresnet",
        ],
        "networks": ["ACTIVATIONS", "cnn", "speednet", "whiten"],
        "stages": ["split", "unfreeze"],
    },
)

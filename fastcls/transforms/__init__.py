"""What happens to images on their way to the network: resizing, and random augmentation of whole batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batchwise": ["Affine", "ColorJitter", "Crop", "Cutout", "Erase", "Flip", "augment", "policy"],
        "mixing": ["mix"],
        "resizing": ["grow", "resize"],
    },
)

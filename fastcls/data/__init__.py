"""From a fastai DataBlock to DataLoaders: `data.loaders`; splits of a table, splitters, and the block of its labels."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "blocks": ["loaders"],
        "splitting": ["by_column", "split", "stratified"],
        "target": ["label_block"],
    },
)

"""From a fastai DataBlock to DataLoaders: `data.loaders`, and splitters for it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"blocks": ["by_column", "loaders", "stratified"]}
)

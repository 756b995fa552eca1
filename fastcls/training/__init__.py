"""How a network is trained: loss, optimiser, schedule, the solved head, averages of the weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "losses": ["loss"],
        "objectives": ["metrics"],
        "optimizers": ["Muon", "optimizer"],
        "schedules": ["fit_schedule"],
        "averaging": ["PolyakAverage", "ema"],
    },
)

"""The methods of fastai that are replaced: they are still those that the replacements were written for."""

from __future__ import annotations

import hashlib
import inspect

import fastai
import pytest

from fastcls.training import patches

SEEN = {  # sha256 of their source, the first 12 digits, in fastai 2.8.2 to 2.8.12
    "Learner.fit": "906ea53ee218",
    "Learner._do_fit": "299119d30341",
    "Learner._do_epoch_train": "b510ce0b3176",
    "Learner._do_epoch_validate": "6519db971279",
    "Learner.all_batches": "98d31c154d1a",
    "Learner._call_one": "e30949028df1",
    "Learner.to_detach": "c504f5cccf7c",
    "BaseLoss._contiguous": "5362f57ca033",
}


def test_every_replaced_method_is_known() -> None:
    assert [method.__qualname__ for method in patches.REPLACED] == list(SEEN)


@pytest.mark.parametrize("method", patches.REPLACED, ids=lambda method: method.__qualname__)
def test_fastai_has_not_changed_what_is_replaced(method: object) -> None:
    found = hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:12]
    name = method.__qualname__
    assert found == SEEN[name], (
        f"fastai {fastai.__version__} has another {name}. Read it, and check that training/patches.py still does the "
        "same but for what it is there for; that resume (tests/training/test_resume.py) and the step's speed "
        f"(benchmarks/step.py) hold; then write {found} here and raise fastai's bound in pyproject.toml."
    )


def test_a_replaced_method_comes_back_after_an_error() -> None:
    class Owner:
        def kept(self) -> int:
            return 1

        def own(self) -> int:
            return 1

    owner = Owner()
    owner.own = lambda: 2
    with pytest.raises(ZeroDivisionError), patches.replaced(owner, kept=lambda: 3, own=lambda: 4):
        assert (owner.kept(), owner.own()) == (3, 4)
        raise ZeroDivisionError
    assert (owner.kept(), owner.own()) == (1, 2)
    called: list[int] = []
    patches.once(owner, "kept", lambda: called.append(1))
    assert (owner.kept(), owner.kept(), called) == (None, 1, [1])

"""Which images of a split are worth a look: the highest losses, confident mistakes, hits of little confidence."""

from __future__ import annotations

import pandas as pd

TOP_LOSSES, CONFIDENT, UNSURE = 24, 12, 12
PAIRS = 12  # of classes, with an example mistake each
EACH = 3  # further mistakes of one pair of classes, so that a cell of the matrix has something to show
MISTAKES = 96  # of these in all, of the commonest pairs first


def select(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each kind; table: path, label, prediction, confidence and loss of one split's images."""
    table = table[table["loss"].notna()]
    wrong = table[table["label"] != table["prediction"]]
    right = table[table["label"] == table["prediction"]]
    return {
        "losses": table.nlargest(TOP_LOSSES, "loss"),
        "confident": wrong.nlargest(CONFIDENT, "confidence"),
        "unsure": right.nsmallest(UNSURE, "confidence"),
        "mistakes": _of_pairs(wrong).head(MISTAKES),
    }


def explained(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that get a heat map: all kinds', but of the further mistakes only one of each commonest pair."""
    kinds = select(table)
    pairs = kinds["mistakes"].drop_duplicates(["label", "prediction"]).head(PAIRS)
    chosen = pd.concat([kinds["losses"], kinds["confident"], kinds["unsure"], pairs])
    return chosen[~chosen.index.duplicated()]


def _of_pairs(wrong: pd.DataFrame) -> pd.DataFrame:
    """At most EACH mistakes of a pair of classes, costliest first; the commonest pairs first, every pair's first before
    any second."""
    wrong = wrong.sort_values("loss", ascending=False, kind="stable")
    pair = wrong.groupby(["label", "prediction"], sort=False)
    ranked = wrong.assign(_nth=pair.cumcount(), _size=pair["loss"].transform("size"))
    ranked = ranked[ranked["_nth"] < EACH].sort_values(["_nth", "_size"], ascending=[True, False], kind="stable")
    return ranked.drop(columns=["_nth", "_size"])

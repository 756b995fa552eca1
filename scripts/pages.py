"""Pages of the documentation that are made from the source: one a recipe, the reference, README and the like."""

from __future__ import annotations

import ast
import html
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from fastcls.settings import sources
from fastcls.settings.knobs import REQUIRED, Knob

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
PICTURES = ROOT / "docs" / "recipes"
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
STAGES = {"get_learner": "Data and network", "fit": "Training"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages; the README's links lead to the pages of this site."""
    recipes = [sources.find(path.stem) for path in sorted((ROOT / "recipes").glob("*.py"))]
    pages = {page: _beside(file) for file, page in BESIDE.items()}
    pages |= {"recipes.md": _overview(recipes), "reference.md": _reference()}
    pages |= {f"recipes/{recipe.name}.md": _recipe(recipe) for recipe in recipes}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def _beside(name: str) -> str:
    """A file that lies beside docs/, its links made to lead to the pages of this site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for file, page in (BESIDE | {"recipes/": "recipes.md"}).items():
        text = text.replace(f"]({file})", f"]({page})")
    return re.sub(r"\]\(docs/", "](", text)


def _overview(recipes: list[sources.RecipeSource]) -> str:
    rows = [
        f"| [{recipe.name}](recipes/{recipe.name}.md) | {_cell(recipe.title)} | {_cell(recipe.claim)} |"
        for recipe in recipes
    ]
    head = ["| recipe | what it trains | claim |", "| --- | --- | --- |"]
    intro = "Each recipe is one short Python file; its page shows the source."
    return "\n".join(["# Recipes", "", intro, "", *head, *rows, ""])


def _recipe(recipe: sources.RecipeSource) -> str:
    parts = [f"# {recipe.name}", recipe.title]
    parts += [f"**{name}.** {_cell(text)}" for name, text in recipe.fields.items() if name != "Run"]
    parts.append(f"```bash\n{recipe.fields.get('Run', f'fastcls recipe {recipe.name}')}\n```")
    for stage, title in STAGES.items():
        rows = [_knob(knob) for knob in recipe.stage(stage)]
        parts.append(f"## {title}: the knobs of `{stage}`")
        parts.append("\n".join(["| knob | default | meaning |", "| --- | --- | --- |", *rows]) if rows else "None.")
    parts += ["## Source", f"```python\n{recipe.source.strip()}\n```", "## Measured", *_measured(recipe.name)]
    parts += ["## Report", *_report(recipe.name)]
    return "\n\n".join(parts) + "\n"


def _knob(knob: Knob) -> str:
    default = "required" if knob.default is REQUIRED else f"`{knob.default!r}`"
    choices = f" ({', '.join(map(str, knob.choices))})" if knob.choices else ""
    return f"| `{knob.flag}` | {default} | {_cell(knob.help + choices)} |"


def _measured(recipe: str) -> list[str]:
    parts = []
    for file in sorted(RESULTS.glob("*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["recipe"] == recipe:
            made = f"`{record['command']}`\n\n{record['hardware']}, {'/'.join(record['precision'])}; {record['date']}."
            figure = f"![Accuracy of each setting](../results/{file.stem}.png)"
            parts += [f"### {file.stem}", made, record["table"], *record["notes"], figure]
    return parts or ["Not measured yet: [why](../results.md#not-measured-yet)."]


def _report(recipe: str) -> list[str]:
    """The top of a run's report, and which run it is of, as `scripts/pictures --recipes` leaves them."""
    file = PICTURES / f"{recipe}.json"
    if not file.is_file():
        return ["No picture yet: there is no finished run of this recipe on the machine that makes the pictures."]
    record = json.loads(file.read_text(encoding="utf-8"))
    images = ", ".join(f"{count:,} {split}" for split, count in record["images"].items())
    parts = [f"`{record['command']}`", f"{images} images in {record['classes']} classes", f"seed {record['seed']}"]
    caption = f"The top of the report of {'; '.join([*parts, record['hardware'], record['date']])}. {record['remark']}"
    return [caption.strip(), f"![The top of the report]({recipe}.png)"]


def _cell(text: str) -> str:
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def _reference() -> str:
    """The verbs in Python, what recipes import, and what notebooks call."""
    text = "# Reference\n\nWhat recipes and notebooks use. Everything else is internal and may change.\n\n"
    parts = ["::: fastcls.api", "::: fastcls.datasets"]
    for package in ("data", "models", "training", "transforms"):
        tree = ast.parse((ROOT / "fastcls" / package / "__init__.py").read_text(encoding="utf-8"))
        call = next(node for node in ast.walk(tree) if isinstance(node, ast.Call))
        names = ast.literal_eval(next(keyword.value for keyword in call.keywords if keyword.arg == "submod_attrs"))
        for module, members in names.items():
            parts.append(f"::: fastcls.{package}.{module}\n    options:\n      members: {members}")
    others = ("evaluation.interpret", "evaluation.plots", "inference.predictor", "running.lr_find")
    return text + "\n\n".join([*parts, *(f"::: fastcls.{name}" for name in others)]) + "\n"

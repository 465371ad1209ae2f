"""The import arrow, read off syntax trees: which part of the package may know which.

A part is a module or folder directly under `evenloop`. Imports inside functions and under
`TYPE_CHECKING` count too: knowing a type is knowing the module. A new part must be given its place
in `MAY_IMPORT`, which is the whole rule.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "evenloop"
FILES = sorted(SOURCE.rglob("*.py"))

# rng > data > groups > counts > measures > methods > fit > loop > loops > study, report > cli
# They import nothing of ours: anyone may import them.
HELPERS = {"digest", "extras", "faults", "promises", "words"}
GROUND = HELPERS | {"rng", "schema", "data", "groups"}
MEASURED = GROUND | {"counts", "measures", "intervals", "shares"}
METHODS = {"samplers", "objectives", "surgery", "heuristics"}  # usable in a stranger's own loop
TRAINED = MEASURED | METHODS | {
    "seams", "heads", "augment", "recipe", "optimizer", "accumulation", "fit", "models", "readings",
    "roles",
}  # fmt: skip
# What a loop may not know, but for the bound.
KEPT = {"bound", "disk", "known", "record", "claims", "population_claim", "audit"}
RUN = TRAINED | KEPT | {"world", "trial", "state", "loop"}
ASSEMBLED = RUN | {
    "rates", "metrics", "worlds", "loops", "presets", "inputs", "overrides", "config", "build",
}  # fmt: skip

MAY_IMPORT: dict[str, set[str]] = {
    **{helper: set() for helper in HELPERS},
    "accumulation": set(),
    "bound": set(),
    "disk": set(),
    "heads": set(),
    "progress": set(),
    "rng": HELPERS,
    "schema": HELPERS,
    "data": HELPERS | {"rng", "schema"},
    "groups": HELPERS | {"rng", "data"},
    "counts": GROUND,
    "measures": GROUND | {"counts", "intervals"},
    "intervals": GROUND | {"counts", "measures"},
    "shares": GROUND | {"counts", "measures", "intervals"},
    "rates": MEASURED,
    "metrics": MEASURED | {"record", "claims"},
    "seams": GROUND,
    "roles": GROUND,
    **{method: GROUND | {"seams", "heads", "roles"} for method in METHODS},
    "models": GROUND | {"seams", "heads", "roles"},
    "scorers": HELPERS,
    "texts": GROUND | {"scorers"},
    "augment": HELPERS | {"rng"},
    "recipe": HELPERS | {"rng", "augment"},
    "optimizer": {"recipe", "accumulation"},
    "readings": GROUND | {"seams"},
    "fit": GROUND | METHODS | {"seams", "recipe", "optimizer", "augment"},
    "audit": MEASURED | {"fit", "readings", "seams", "heuristics"},
    "world": GROUND | METHODS | {"seams", "recipe", "fit"},
    "known": GROUND,
    "record": MEASURED | {"disk", "known"},
    "claims": MEASURED | {"record", "bound"},
    "population_claim": MEASURED | {"record", "claims"},
    "trial": GROUND | {"world", "audit", "fit", "seams", "known"},
    "state": GROUND | {"counts", "seams", "world"},
    "loop": RUN - {"models"},
    "worlds": TRAINED | {"loop", "readings", "scorers", "texts"},
    "loops": TRAINED | {"world", "loop", "bound"},  # no audit, record, claims or other loop
    "inputs": {"words"},
    "parts": RUN | {"inputs"},
    "overrides": (ASSEMBLED - {"config", "build"}) | {"parts"},
    "notation": TRAINED | {"worlds", "loops", "parts"},
    "config": (ASSEMBLED - {"build"}) | {"notation"},
    "sources": ASSEMBLED - {"build"},
    "build": ASSEMBLED | {"parts", "sources"},
    "study": ASSEMBLED | {"progress"},
    "report": RUN | {"metrics", "inputs", "config", "study", "worlds"},
    "commands": ASSEMBLED | {"study", "report", "progress"},
    "cli": ASSEMBLED | {"study", "report", "progress", "commands"},
    "__main__": {"cli"},
    "public": {"loops"},
    "__init__": {"public"},
}
LAZY = (
    "datasets", "detoxify", "diffusers", "efficientnet_lite_pytorch", "h5py", "mlflow",
    "profanity_check", "ray", "resvg_py",
    "skactiveml",
    "submitit", "tensorboard", "timm", "tokenizers", "torch_pruning", "torchvision",
    "transformers", "wandb",
)  # fmt: skip
HEAVY = ("torch", "pandas", "matplotlib")


def part_of(path: Path) -> str:
    """The part a file belongs to: `loops` for loops/relabel.py, `fit` for fit.py."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names imported anywhere in `tree`, a module of `package`, relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join((above if node.level else []) + ([node.module] if node.module else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def own(tree: ast.AST, package: str = "evenloop") -> set[str]:
    """Dotted names below `evenloop` that `tree` imports, without the leading `evenloop.`."""
    return {
        n.removeprefix("evenloop.") for n in imported(tree, package) if n.startswith("evenloop.")
    }


def complaints(part: str, file: str, tree: ast.AST, package: str = "evenloop") -> list[str]:
    """What `tree`, a file of `part`, imports against the arrow.

    `loops/_mix.py` and `loops/_mix_*.py` hold what `loops/mix.py` is too long for: those may know
    each other.
    """
    found = []
    mine = Path(file).stem.removeprefix("_").partition("_")[0]
    for name in sorted(own(tree, package)):
        target, _, rest = name.partition(".")
        another = rest.partition(".")[0].removeprefix("_").partition("_")[0] != mine
        allowed = target in MAY_IMPORT[part] | {part, "__version__"}
        if not allowed or (part == "loops" == target and another):
            found.append(f"{file}: {part} may not import evenloop.{name}")
    return found


def package_of(path: Path) -> str:
    """Dotted package that a file's relative imports start from."""
    return ".".join(("evenloop", *path.relative_to(SOURCE).parts[:-1]))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_follow_the_arrow(path: Path) -> None:
    part = part_of(path)
    assert part in MAY_IMPORT, f"give {part} its place in MAY_IMPORT"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert complaints(part, str(path.relative_to(SOURCE)), tree, package_of(path)) == []


@pytest.mark.parametrize(
    ("part", "file", "text"),
    [
        ("rng", "rng.py", "from evenloop.data import GroupedData"),
        ("groups", "groups.py", "import evenloop.counts"),
        ("samplers", "samplers/quota.py", "from evenloop import fit"),
        ("heuristics", "heuristics/bald.py", "def f():\n    from evenloop.measures import gap"),
        ("loops", "loops/mix.py", "if TYPE_CHECKING:\n    from evenloop.record import Record"),
        ("loops", "loops/mix.py", "from evenloop.audit import Audit"),
        ("loops", "loops/mix.py", "from evenloop.loops.relabel import Relabel"),
        ("loops", "loops/mix.py", "from evenloop.loops._relabel import draw"),
        ("record", "record.py", "from evenloop.loop import State"),
        ("fit", "fit.py", "from evenloop import GroupedData"),
    ],
)
def test_an_import_against_the_arrow_is_found(part: str, file: str, text: str) -> None:
    assert len(complaints(part, file, ast.parse(text))) == 1


@pytest.mark.parametrize(
    ("part", "file", "text"),
    [
        ("groups", "groups.py", "import torch\nfrom evenloop.data import GroupedData"),
        ("samplers", "samplers/quota.py", "from evenloop.groups import GroupIndex"),
        ("loops", "loops/mix.py", "from evenloop.fit import fit, predict"),
        ("loops", "loops/mix.py", "from evenloop.loops._mix import shares"),
        ("loops", "loops/_mix.py", "from evenloop.loops.mix import Mix"),
        ("claims", "claims.py", "from evenloop.counts import Counts"),
    ],
)
def test_an_import_along_the_arrow_passes(part: str, file: str, text: str) -> None:
    assert complaints(part, file, ast.parse(text)) == []


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse(
        "from .relabel import Relabel\nfrom ..record import Record\nfrom . import acquire"
    )
    assert own(tree, "evenloop.loops") == {
        "loops.relabel.Relabel",
        "record.Record",
        "loops.acquire",
    }


def is_type_checking(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, whose body never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def at_import_time(tree: ast.Module) -> set[str]:
    """Top-level packages that a module imports as soon as it is imported itself."""
    later = (ast.FunctionDef, ast.AsyncFunctionDef)
    outer = [n for n in tree.body if not isinstance(n, later) and not is_type_checking(n)]
    return {name.partition(".")[0] for node in outer for name in imported(node, "evenloop")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_extras_are_imported_where_they_are_used(path: Path) -> None:
    assert at_import_time(ast.parse(path.read_text(encoding="utf-8"))).isdisjoint(LAZY)


def test_an_eager_extra_is_found() -> None:
    assert "torchvision" in at_import_time(ast.parse("import torchvision.transforms"))
    assert at_import_time(ast.parse("try:\n    import ray\nfinally:\n    pass")) == {"ray"}
    assert at_import_time(ast.parse("def f():\n    import torchvision")) == set()
    assert at_import_time(ast.parse("if TYPE_CHECKING:\n    import torchvision")) == set()


def loaded_by(code: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded after `code`."""
    tail = f"import sys; print('loaded', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import evenloop") == set()
    assert loaded_by("import evenloop; dir(evenloop)") == set()


def test_asking_for_help_loads_nothing_heavy() -> None:
    help_ = (
        "import sys\nfrom evenloop.cli import main\nsys.argv = ['evenloop', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    assert loaded_by(help_) == set()


def test_a_heavy_import_is_seen() -> None:
    assert loaded_by("import pandas") == {"pandas"}

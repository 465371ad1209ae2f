"""A tiny run that prunes packaged digits, and what the command line makes of it."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from evenloop.cli import app

TINY = """
world: {name: mnist5k}
test_size: 200
by: [truth]
loop:
  - prune:
      rows: 300
      tolerance: 0.02
      sparsity: [0.5, 0.8]
      prune_until: 1
      buffer_size: 5
      tune: {lr: 0.05, epochs: 3}
net: {name: mlp, hidden: [16, 16]}
recipe: {base: mlp, batch: 50, epochs: 3}
rounds: 3
seeds: 2
"""


def page_of(command: str, config: str, name: str, out: Path) -> str:
    """The page after `evenloop run` or `sweep` of `config`, kept in `out`/`name`.yaml."""
    path = out / f"{name}.yaml"
    path.write_text(config)
    done = CliRunner().invoke(app, [command, str(path), "-q", "-j", "1", "-o", str(out)])
    assert done.exit_code == 0, done.output
    pages = out.glob("sweep-*.html") if command == "sweep" else out.rglob("report.html")
    return next(pages).read_text()

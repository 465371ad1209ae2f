"""Emoji roles at laptop size: the likeliest frame drifts towards the majority, a draw does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evenloop import measures
from evenloop.build import assemble
from evenloop.loop import run
from evenloop.study.sweep import load_sweep


@pytest.mark.slow
def test_argmax_drifts_and_sampling_holds(tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    pytest.importorskip("resvg_py", reason="needs the extra emoji")
    roots = {real_data(name).parent for name in ("openmoji", "fluent3d", "twemoji")}
    settings = (f"root={roots.pop()}", f"cache={tmp_path}", "seeds=[100]", "rounds=4")
    bias = {}
    for name, config in load_sweep("roles-rules", settings).arms.items():
        if name == "marginal":
            continue
        job = assemble(config, 100)
        rows = run(job.loop, job.world, job.audit, rounds=4, seed=100).rows
        means = [measures.mean(row.moments["audit.women.bias.all"]).value[0] for row in rows]
        bias[name] = [float(mean) for mean in means]
    assert bias["argmax"][-1] < bias["argmax"][0] - 0.03
    assert bias["argmax"][-1] < bias["sampled"][-1] - 0.1
    assert abs(bias["sampled"][-1]) < 0.1

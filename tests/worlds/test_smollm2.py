"""One round of text feedback with a real pretrained model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evenloop.build import assemble
from evenloop.config import load
from evenloop.loop import run

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def save(source: Path, target: Path) -> None:
    """The packaged quantised model as a folder of the Hugging Face format, 538 MB."""
    hf = pytest.importorskip("transformers", reason="the extra `text` is not installed")
    for package in ("gguf", "accelerate"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    options = {"gguf_file": FILE}
    tokens = hf.AutoTokenizer.from_pretrained(source, **options)
    read = hf.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options)
    # A model read from such a file refuses to be saved; its copy does not.
    net = hf.LlamaForCausalLM(read.config)
    net.load_state_dict(read.state_dict())
    if hasattr(net.config, "quantization_config"):
        del net.config.quantization_config
    net.save_pretrained(target)
    tokens.save_pretrained(target)


@pytest.mark.slow
@pytest.mark.global_rng  # transformers draws initial weights before it reads the real ones
@pytest.mark.filterwarnings("ignore")  # of libraries that read the quantised file
def test_a_round_with_smollm2(
    real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(real_data("smollm2"), tmp_path / "weights" / "smollm2")
    monkeypatch.setenv("EVENLOOP_DATA", str(tmp_path))
    root = real_data("fairtext") / "BOLD" / "data"
    job = assemble(load("smollm2:small", [f"world.root={root}"]), 0)
    record = run(job.loop, job.world, job.audit, rounds=2, seed=0, claims=job.claims)
    assert record.rows[1].sizes["relabelled"] == 4
    loss = record.rows[0].moments["audit.loss"].table.sum(0)
    assert 1 < loss[1] / loss[0] < 6  # nats a token; a uniform guess would cost 10.8

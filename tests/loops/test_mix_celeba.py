"""The published commands end to end on pictures drawn here: table, folders, presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image

from evenloop.build import assemble
from evenloop.config import ConfigError, RunConfig, load
from evenloop.loop import run
from evenloop.models import Pixels, build
from evenloop.rng import Rng
from evenloop.samplers.ratios import (
    CellIndex,
    RatioBatchSampler,
    RatioController,
    RatioObjective,
    Ratios,
    Validation,
)
from evenloop.worlds.celeba import VALUES, CelebA, GeneratedFaces

NAMES = ["Black_Hair", "Blond_Hair", "Eyeglasses", "Male", "Smiling", "Young"]


def draw(path: Path, shade: int, spot: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (20, 24), (shade, shade, shade))
    image.putpixel((spot % 20, spot // 20 % 24), (255, spot % 256, 0))
    image.save(path)


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    lines = []
    for i in range(160):
        bits = [1 if (i >> b) & 1 else -1 for b in range(6)]
        lines.append(f"{i:06}.png " + " ".join(map(str, bits)))
        draw(tmp_path / "img_align_celeba" / f"{i:06}.png", 60 + 100 * (bits[5] > 0), i)
    head = [str(len(lines)), " ".join(NAMES)]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join([*head, *lines]) + "\n")
    for i in range(64):
        tokens = [
            VALUES[name][(i >> b) % len(VALUES[name])]
            for b, name in enumerate(("age", "gender", "smiling", "glasses", "haircolors"))
        ]
        draw(tmp_path / "made" / "_".join(tokens) / f"{i}.png", 70 + 100 * (i & 1), i + 7)
    return tmp_path


@pytest.mark.parametrize("task", ["age-gender", "hair-age-gender"])
def test_a_published_command_runs_small(celeba: Path, task: str) -> None:
    settings = [
        f"world.root={celeba}", f"generated.root={celeba / 'made'}", "world.limit=160",
        "world.to=16", "world.crop=12", "world.through=16", "test_size=40", "batch=24",
        "per_cell=2", "net={name: logistic}", "epochs=1",
    ]  # fmt: skip
    config = load(f"mix-celeba-{task}:small", settings)
    config = config.model_copy(
        update={"generated": config.generated | {"to": 16, "crop": 12, "through": 16}}
    )
    job = assemble(config, 0)
    with torch.random.fork_rng():
        record = run(job.loop, job.world, job.audit, rounds=1)
    row = record.rows[0]
    assert row.sizes["generated"] == 64
    assert row.sizes["world"] == 120
    assert row.counts["audit"].total == 40
    assert row.values["share of generated rows drawn"] > 0.2


def test_unknown_folders_end_before_training(celeba: Path) -> None:
    draw(celeba / "made" / "old_male_frown_glasses_blackhair" / "0.png", 10, 3)
    settings = [f"world.root={celeba}", f"generated.root={celeba / 'made'}", "test_size=40"]
    with pytest.raises((ConfigError, ValueError), match="unknown token 'frown' for 'smiling'"):
        assemble(load("mix-celeba-age-gender:small", settings), 0)


SPLITS = (("train", 96), ("val", 32), ("test", 32))


def published(celeba: Path, *settings: str, side: int = 12) -> RunConfig:
    """The full preset on the pictures drawn here, at `side` pixels."""
    given = [f"world.root={celeba}", f"generated.root={celeba / 'made'}", *settings]
    plain = ["test_size=32", "batch=16", "epochs=1"]
    config = load("mix-celeba-age-gender", [*plain, *given])
    sides = {"through": side, "to": side, "crop": side}
    world, made = config.world | sides, config.generated | sides
    return config.model_copy(update={"world": world, "generated": made})


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evenloop.worlds.celeba.SPLITS", SPLITS)


def test_the_published_splits_train_hold_out_and_audit(celeba: Path, small_splits: None) -> None:
    job = assemble(published(celeba, "net={name: logistic}", "per_cell=2"), 0)
    assert sorted(job.audit.data.row.tolist()) == list(range(128, 160))
    record = run(job.loop, job.world, job.audit, rounds=1)
    assert record.rows[0].counts["held out"].total == 32
    state = job.loop.init(job.world, None, Rng.of(0))
    after, _ = job.loop.step(job.world, state, 0, Rng.of(0))
    held = after.data.take(after.extra["mix"]["held"])
    rows = held.row[held.row >= 0]
    assert sorted(rows.tolist()) == list(range(96, 128))
    assert 12 <= int((held.row < 0).sum()) <= 20  # a fifth of each cell's generated rows


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-50 for a thousand classes, as a file of the user's would be."""
    path = tmp_path_factory.mktemp("weights") / "resnet50.pt"
    net = build("imagenet-resnet50", channels=3, size=224, classes=1000, seed=9)
    torch.save(net.state_dict(), path)
    return path


def test_a_resnet50_from_local_weights_in_mixed_precision_and_parts(
    celeba: Path, small_splits: None, weights: Path
) -> None:
    settings = (
        "per_cell=1", f"net.weights={weights}", "precision=bf16", "micro_batch=2", "batch=4",
        "generated.limit=8", "rows=10", "test_size=2",
    )  # fmt: skip
    config = published(celeba, *settings, side=33)
    job = assemble(config, 0)
    net = job.world.net(Rng.of(0))
    stored = torch.load(weights, weights_only=True)
    own = dict(net.named_parameters())
    same = [n for n, v in stored.items() if any(k.endswith(n) and torch.equal(p, v)
                                                for k, p in own.items())]  # fmt: skip
    assert len(same) > 100  # the body is that of the file; the head is new
    record = run(job.loop, job.world, job.audit, rounds=1)
    row = record.rows[0]
    assert row.values["updates"] >= 1
    assert row.counts["audit"].total == 2
    assert all(0 < v < 1 for k, v in row.values.items() if k.startswith("mu "))


def together(rank: int, folder: str, root: str) -> None:
    """One of two processes: a convolutional net on the pictures, shares moved together."""
    store = f"file://{Path(folder) / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    real = CelebA(root, limit=96, through=36, to=36, crop=33).load()
    made = GeneratedFaces(Path(root) / "made", through=36, to=36, crop=33).load()
    cells = CellIndex.of(real.append(made), ["gender"])
    data = real.append(made)
    net = build("small-cnn", channels=3, size=33, classes=2, seed=0)
    model = torch.nn.parallel.DistributedDataParallel(Pixels(net, (0.5,) * 3, (0.5,) * 3))
    train, held = torch.arange(0, len(data), 2), torch.arange(1, len(data), 2)
    ratios = Ratios(cells.take(train))
    control = RatioController(
        model, ratios, RatioObjective(), Validation(data.x[held], cells.take(held)),
        generator=torch.Generator().manual_seed(1), per_cell=2, lr=0.1, distributed=True,
    )  # fmt: skip
    sampler = RatioBatchSampler(
        ratios.cells, ratios, 4, batches=2, rank=rank, world_size=2,
        generator=torch.Generator().manual_seed(2),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for batch in sampler:
        rows = train[batch]
        loss = torch.nn.functional.cross_entropy(model(data.x[rows]), data.y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        control.step(lag=sampler.lag - 1)
        sampler.trained()
    torch.save({"lam": ratios.lam, "mu": ratios.mu, "rows": batch}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_two_processes_move_the_shares_of_pictures_alike(celeba: Path, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(together, (str(tmp_path), str(celeba)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{r}.pt", weights_only=True) for r in range(2))
    assert torch.equal(first["lam"], second["lam"])
    assert torch.equal(first["mu"], second["mu"])
    assert not set(first["rows"]) & set(second["rows"])
    assert not torch.equal(first["mu"], torch.full_like(first["mu"], 0.5))

"""From a checked configuration to the values of a run: loop, world, audit split, claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evenloop import loops, models, parts
from evenloop.audit import Audit
from evenloop.claims import Claim, ExcessGapClaim, FeedbackClaim
from evenloop.config import RunConfig, buys_selected
from evenloop.data import GroupedData
from evenloop.fit import TrainsItself
from evenloop.heuristics.posterior import draws_differ
from evenloop.inputs import ConfigError, construct, known
from evenloop.loop import Loop, World, chain, check_labels
from evenloop.models import Pixels
from evenloop.population_claim import PopulationClaim
from evenloop.promises import AccuracyKept, BiasBounded, SharesKept
from evenloop.readings import Structured, padded
from evenloop.recipe import RECIPES, Recipe
from evenloop.record import kept_models
from evenloop.rng import Rng
from evenloop.seams import Writes, check_separable
from evenloop.sources import dropped, generated, rows
from evenloop.trial import check_net
from evenloop.worlds.images import pixel_moments
from evenloop.worlds.prepare import holdout, imbalanced

__all__ = ["Job", "assemble", "check"]

_PIXELS = 10_000_000  # of each channel that a world's moments are measured on


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One seed's run, ready to go.

    `notes` are sentences to read before it, `alarms` those that stand above its report as well.
    """

    loop: Loop
    world: World
    audit: Audit
    claims: tuple[Claim, ...]
    rounds: int
    seed: int
    notes: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


def assemble(config: RunConfig, seed: int) -> Job:
    """The values of one seed's run; the data is read once per process.

    Raises:
        ConfigError: a value that the data or the model contradicts.
        FileNotFoundError: the world's files are not there.
    """
    root = Rng.of(seed)
    loop, recipe = _loop(config, seed), _recipe(config)
    data, normalisation, structured = rows(config, config.world, seed)
    _compatible(config, recipe, structured is not None)
    _several_classes(data)
    gone = dropped(config, seed)
    try:
        check_labels(loop, data)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    data, made = generated(config, data, seed)
    data, notes = _imbalanced(data, config, root)
    train, held_out = _held_out(data, config, root.at("holdout"))
    for name in config.by:
        if name not in ("truth", "label"):
            known(name, [a.name for a in data.schema.attributes] + ["truth"], "by")
    if made is not None:
        train = train.append(made)
    claims = _claims(config, data, loop)
    world = _world(config, train, recipe, normalisation, structured)
    reading = None if structured is None else structured.reading
    audit = Audit(held_out, world.by, reading=reading, draws=config.audit_draws)
    said = ((), ()) if gone is None else (gone.notes(), gone.alarms())
    return Job(loop, world, audit, claims, config.rounds, seed, notes + said[0], said[1])


def _world(
    config: RunConfig,
    train: GroupedData,
    recipe: Recipe,
    normalisation: Any,
    structured: Structured | None,
) -> World:
    """The train side with its net and seams; labels with structure bring seams of their own."""
    classes, shape = len(train.schema.classes), train.x.shape[1:]
    if structured is None:
        net = _Net(config.net, shape, classes, normalisation or _measured(train.x))
        by, sampler = config.by, parts.sampler(config.sampler)
        objective = parts.objective(config.objective)
    else:
        net = _Net({**structured.net, **config.net}, shape, classes, None)
        by = () if config.by == ("truth",) else config.by
        sampler, objective = structured.sampler, structured.objective
    return World(train, by, net, recipe, sampler=sampler, objective=objective, keep_order=True)


def _measured(x: torch.Tensor) -> Any:
    """Moments of the pictures trained on, for a world that states none; None for other rows."""
    if x.ndim != 4 or x.dtype is not torch.uint8:
        return None
    few = max(_PIXELS // (x.shape[2] * x.shape[3]), 1)  # the train side is in random order
    means, deviations = pixel_moments(x[:few])
    return means, tuple(deviation or 1.0 for deviation in deviations)  # a constant channel


def _compatible(config: RunConfig, recipe: Recipe, structured: bool) -> None:
    """Fields that contradict each other: a named seam and the recipe's, or labels and seams."""
    named = {s: getattr(config, s)["name"] for s in parts.PLAIN if getattr(config, s) is not None}
    smoothed = {"label_smoothing": recipe.label_smoothing} if recipe.label_smoothing else {}
    dropped = {"drop_last": True} if recipe.drop_last else {}
    if structured:
        off = {**smoothed, **dropped, **named}
        off |= {k: getattr(config, k) for k in ("imbalance", "audit_draws") if getattr(config, k)}
        for key, value in off.items():
            raise ConfigError(
                f"{key}={value!r} needs labels that are classes; those of world "
                f"{config.world['name']!r} have structure and bring what they need: leave it out"
            )
    for seam, given in (("objective", smoothed), ("sampler", dropped)):
        if given and named.get(seam, parts.PLAIN[seam]) != parts.PLAIN[seam]:
            key, value = next(iter(given.items()))
            raise ConfigError(
                f"recipe.{key}={value} and {seam}={named[seam]!r} contradict each other: "
                f"{named[seam]} knows no {key}; leave one out"
            )


def _several_classes(data: GroupedData) -> None:
    """Raise `ConfigError` where all rows are of one class: whatever is learned is right there."""
    if data.schema.structure is not None or not len(data):
        return
    low, high = int(data.truth.min()), int(data.truth.max())
    if low == high:
        raise ConfigError(
            f"world: all {len(data)} rows are of one class, {data.schema.classes[low]!r}, so a "
            "model has nothing to learn and every accuracy would be 1; look at the label column"
        )


def _held_out(data: GroupedData, config: RunConfig, rng: Rng) -> tuple[GroupedData, GroupedData]:
    """The train side and the audit split, both in the run's random order."""
    if config.audit == "random":
        if not 1 <= config.test_size < len(data):
            raise ConfigError(
                f"test_size={config.test_size} must leave rows to train on; the data has "
                f"{len(data)}"
            )
        return holdout(data, size=config.test_size, rng=rng)
    values = {a.name: a.values for a in data.schema.attributes}.get("split", ())
    # FairFace publishes no test split: its "val" is what the field reports on.
    official = next((name for name in ("test", "val") if name in values), None)
    if official is None:
        raise ConfigError("audit=test needs data with a test split; use audit=random")
    order = torch.randperm(len(data), generator=rng.gen())
    test = data.attribute("split")[order] == values.index(official)
    found = int(test.sum())
    if not 1 <= config.test_size <= found or found == len(data):
        raise ConfigError(f"test_size={config.test_size} must be in 1..{found}, its test rows")
    return data.take(order[~test]), data.take(order[test][: config.test_size])


def check(config: RunConfig) -> tuple[str, ...]:
    """Everything that can be wrong before training, tried on the first seed.

    Returns:
        Sentences a person should read before the run, such as a class with too few rows.

    Raises:
        ConfigError: naming the field, the value and the fix.
        FileNotFoundError: the world's files are not there.
    """
    job = assemble(config, config.seeds[0])
    _usable(job.world.recipe.device)
    try:
        state = job.loop.init(job.world, None, Rng.of(0).at("check"))
        _try(job, config)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    except RuntimeError as error:
        shape = tuple(job.world.data.x.shape[1:])
        raise ConfigError(
            f"net={config.net['name']!r} does not take rows of shape {shape} "
            f"({str(error).splitlines()[0]}); choose another net or world"
        ) from None
    recipe, n = job.world.recipe, len(state.data)
    if recipe.drop_last and recipe.batch > n:
        raise ConfigError(
            f"batch={recipe.batch} is larger than the first training set of {n} rows and short "
            f"batches are dropped; set batch to at most {n} or drop_last=false"
        )
    return (*job.notes, *job.alarms, *job.loop.foreseen(job.world))


def _try(job: Job, config: RunConfig) -> None:
    """The net and the seams on two rows.

    Raises:
        ValueError, RuntimeError: what training would end with.
    """
    world = job.world
    net, few = check_net(world, f"net={config.net['name']!r}"), world.data.take([0, 1])
    groups = world.groups(few)
    if world.sampler is not None:
        next(iter(world.sampler().epoch(few, groups, batch=2, rng=Rng.of(0))))
    if world.recipe.micro_batch is not None and world.objective is not None:
        check_separable(world.objective(), world.recipe.micro_batch)
    if config.audit_draws > 1 and not draws_differ(net, few.x):
        raise ValueError(
            f"audit_draws={config.audit_draws} needs a net with dropout, and net="
            f"{config.net['name']!r} has none: all draws would be equal; set audit_draws=0"
        )
    if few.schema.structure is not None and isinstance(net, Writes):
        padded(job.loop.write(net, few.x, Rng.of(0)), few.schema.structure)


def _usable(device: str) -> None:
    """Try the device: torch knows only then whether it is there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device={device!r} cannot be used here ({reason}); `evenloop doctor` shows what can, "
            "device=cpu always works"
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class _Net:
    """Builds the configured classifier; its first weights depend on the stream alone."""

    options: Mapping[str, Any]
    shape: torch.Size
    classes: int
    normalisation: Any

    def __call__(self, rng: Rng) -> nn.Module:
        options = dict(self.options)
        name = options.pop("name")
        if len(self.shape) == 3:
            channels, size = self.shape[0], tuple(self.shape[1:])
            shape: dict[str, Any] = {"channels": channels, "size": size}
        else:
            shape = {"features": self.shape[0]}
        net = models.seeded(
            lambda: models.build(name, classes=self.classes, **shape, **options), rng.seed
        )
        whole = isinstance(net, TrainsItself)  # it reads bytes as they are
        if len(self.shape) == 3 and self.normalisation is not None and not whole:
            return Pixels(net, *self.normalisation)
        return net


def _loop(config: RunConfig, seed: int = 0) -> Loop:
    built = []
    for entry in config.loop:
        for verb, values in entry.items():
            known(verb, loops.names(), "loop")
            kind = loops.find(verb)
            values = dict(values or {})
            if "track" in kind.__dataclass_fields__ and config.track is not None:
                values.setdefault("track", config.track)
            if isinstance(values.get("dense"), str) and values["dense"] != "train":
                values["dense"] = _dense(values["dense"], seed)
            built.append(construct(kind, values, verb))
    if not built:
        raise ConfigError(f"loop is empty; name at least one of: {', '.join(loops.names())}")
    return built[0] if len(built) == 1 else chain(*built)


def _dense(place: str, seed: int) -> str:
    """A file of weights; "{seed}" in its name is the run's seed, a run folder is its seed's net."""
    path = Path(place.replace("{seed}", str(seed)))
    if not path.is_dir():
        return str(path)
    try:
        return str(kept_models(path if (path / "state").is_dir() else path / f"seed-{seed}"))
    except FileNotFoundError as error:
        raise ConfigError(f"dense={place!r}: {error}") from None


def _recipe(config: RunConfig) -> Recipe:
    values = dict(config.recipe)
    base = values.pop("base", None)
    if base is None:
        return construct(Recipe, values, "recipe")
    known(base, RECIPES, "recipe")
    whole = {f.name: getattr(RECIPES[base], f.name) for f in fields(Recipe)}
    return construct(Recipe, whole | values, "recipe")


def _imbalanced(
    data: GroupedData, config: RunConfig, root: Rng
) -> tuple[GroupedData, tuple[str, ...]]:
    """The rows with `track` favoured as asked, and a note where a class has too few."""
    if config.track is not None:
        try:
            data.schema.klass(config.track)
        except ValueError as error:
            raise ConfigError(f"track: {error}") from None
    if not config.imbalance:
        return data, ()
    if config.track is None:
        raise ConfigError(f"imbalance={config.imbalance} needs track=, the class it favours")
    rng = root.at("imbalance")
    try:
        kept, found = imbalanced(data, track=config.track, factor=config.imbalance, rng=rng)
    except ValueError as error:
        raise ConfigError(f"imbalance={config.imbalance}: {error}") from None
    short = (f"imbalance={config.imbalance}: {found.text()}",) if found.short else ()
    return kept, short


def _claims(config: RunConfig, data: GroupedData, loop: Loop) -> tuple[Claim, ...]:
    """The claims that check what the loop promises."""
    found: list[Claim] = []
    for promise in loop.promises():
        match promise:
            case BiasBounded(rows):
                # Of rows that a model wants labelled by people the theorem is silent.
                if config.track is not None and not buys_selected(config):
                    klass = data.schema.klass(config.track)
                    found += [FeedbackClaim(klass, kind, rows) for kind in ("first", "running")]
            case SharesKept(tolerance):
                found.append(PopulationClaim(tolerance))
            case AccuracyKept(tolerance):
                found += [ExcessGapClaim(tolerance, split) for split in ("fit", "audit")]
    return tuple(found)

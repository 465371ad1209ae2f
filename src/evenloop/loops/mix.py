"""Mix: batches of real and generated rows, their shares learned against a gap between groups.

Source: Yuji Roh, Weili Nie, De-An Huang, Steven Euijong Whang, Arash Vahdat, Anima Anandkumar,
"Dr-Fairness: Dynamic Data Ratio Adjustment for Fair Training on Real and Generated Data", TMLR
2023.
The methods it is compared with: FairBatch (Roh et al., ICLR 2021), group DRO (Sagawa et al., ICLR
2020), and fixed mixtures.

Assumption: groups are known for every training row, and the held-out real rows are drawn like those
the model will meet. Label shares stay those of the real rows. A small gap can be bought by making
everyone worse off: compare with method="real" before calling it a gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch

from evenloop.data import GroupedData, Schema
from evenloop.loop import Loop, Notes, State, World
from evenloop.loops._mix import Mixture
from evenloop.loops._mix_checks import check_world, foreseen, group_columns
from evenloop.loops._mix_rows import first_rows, is_generated, made_rows
from evenloop.rng import Rng
from evenloop.samplers.control import RatioController
from evenloop.samplers.hypergradient import check_options
from evenloop.samplers.outer import Aggregate, Fairness, RatioObjective
from evenloop.samplers.rounding import Rounding
from evenloop.samplers.validation import Draw

__all__ = ["METHODS", "Mix"]

Method = Literal[
    "ratios", "real_ratios", "frozen", "fixed", "real", "generated", "pooled", "topped_up",
    "balanced", "balanced_mixed", "reweight", "fairbatch", "group_dro",
]  # fmt: skip
METHODS: tuple[str, ...] = get_args(Method)
Shares = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Mix(Loop):
    """Each round trains on by the recipe's epochs; the ratios cross rounds, and so does the model.

    Generated rows are those of the world (`origin`), or made here from the training rows.

    Attributes:
        rows: real rows, the first of the world's; 0 takes all.
        method: "ratios" learns both shares; "real_ratios" those of groups on real rows; "frozen"
            learns them and then trains a new model under their last values; "fixed" keeps
            `lambda_init` and `mu_init`. "real", "generated", "pooled" and "topped_up" are uniform
            batches of those rows, "balanced" and "balanced_mixed" equal cells; "reweight",
            "fairbatch" and "group_dro" use real rows.
        fairness: the gap, see `RatioObjective`; FairBatch knows "eqodds", "eqopp" and "dp".
        accuracy_weight: of the mean loss in what the ratios minimise; the paper's k.
        fairness_weight: of the gap in it.
        aggregate, reference, soft, temperature: see `RatioObjective`.
        positive: favourable class, by name or code.
        each: with several group columns, the mean of their gaps instead of the gap of their cross.
        lambda_init: "empirical", "uniform", or shares (C, G) of each group inside each label.
        mu_init: real share of each cell at the start.
        lambda_min, mu_min: floors of the shares; they pull the start towards uniform, too.
        ratio_lr, ratio_every, ratio_optimizer, entropy, warmup: see `RatioController`.
        ratio_decay: update t uses ratio_lr / (1 + ratio_decay * t).
        head: name of the linear layer that gives the logits, or "auto", see `HeadTap`.
        parameters: names of the parameters to differentiate instead of the head's.
        inner_data, hessian, hessian_options, draw, per_cell, size: see `RatioController`.
        reuse: updates that held-out features serve, see there; 0 leaves it to `inner_data`.
        rounding: of the counts in a batch, see `samplers.rounding.whole`.
        freeze_norm: leave the model in eval mode after each update, as the published code did.
        held_out: "share" holds out a share of the rows of each cell for the updates, "split" the
            rows whose attribute "split" says "val" (generated ones by the share if none says so).
        validation: that share.
        generator: "none", or who makes rows from the round's training rows: "smoothed" or "blind"
            for tables (see `heuristics.bootstrap`), "vae" for images (told label and groups).
        made_rows: rows of each cell it makes.
        noise: of "smoothed", relative to the cell's own spread.
        generator_epochs, generator_options: of the VAE (widths, latent).
        ema: decay of the weight average that is audited instead of the last weights; 0 is none.
        alpha: step of FairBatch. dro_rate: step of group DRO.
        against: "real" trains a second model on the same real rows alone, kept as the reference
            that the report compares every cell with.
        restart: every round a new split, model and optimiser, and new rows where they are made
            here; only the ratios cross (in a chain).
    """

    rows: int = 0
    method: Method = "ratios"
    fairness: Fairness = "eqodds"
    accuracy_weight: float = 20.0
    fairness_weight: float = 1.0
    aggregate: Aggregate = "max"
    reference: Literal["pairwise", "pooled"] = "pairwise"
    soft: bool = False
    temperature: float = 0.1
    positive: str | int = 1
    each: bool = False
    lambda_init: Literal["empirical", "uniform"] | Shares = "empirical"
    mu_init: float | Shares = 0.5
    lambda_min: float = 0.0
    mu_min: float = 0.0
    ratio_lr: float = 0.005
    ratio_every: int = 1
    ratio_optimizer: Literal["adam", "sgd"] = "adam"
    ratio_decay: float = 0.0
    head: str = "auto"
    parameters: tuple[str, ...] = ()
    entropy: float = 0.0
    warmup: int = 0
    inner_data: Literal["validation", "train_batch"] = "validation"
    hessian: Literal["identity", "neumann", "cg", "exact"] = "identity"
    hessian_options: Mapping[str, float] = field(default_factory=dict)
    draw: Draw = "stratified"
    per_cell: int = 16
    size: int = 128
    reuse: int = 0
    rounding: Rounding = "stochastic"
    freeze_norm: bool = False
    held_out: Literal["share", "split"] = "share"
    validation: float = 0.2
    generator: Literal["none", "smoothed", "blind", "vae"] = "none"
    made_rows: int = 1000
    noise: float = 0.2
    generator_epochs: int = 20
    generator_options: Mapping[str, Any] = field(default_factory=dict)
    ema: float = 0.0
    alpha: float = 0.005
    dro_rate: float = 0.01
    against: Literal["none", "real"] = "none"
    restart: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}")
        for name in ("rows", "reuse", "ratio_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.held_out not in ("share", "split"):
            raise ValueError(f"held_out must be 'share' or 'split', got {self.held_out!r}")
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must be a share in (0, 1), got {self.validation}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be in [0, 1), got {self.ema}")
        for name in ("made_rows", "generator_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.method == "fairbatch" and self.fairness not in ("eqodds", "eqopp", "dp"):
            raise ValueError(f"fairbatch knows eqodds, eqopp and dp, not {self.fairness!r}")
        if self.method == "fixed" and (self.lambda_min or self.mu_min):
            raise ValueError(
                "method=fixed keeps the shares it is given, and floors would move them; set "
                f"lambda_min=0 and mu_min=0, got {self.lambda_min} and {self.mu_min}"
            )
        if self.parameters and (
            self.hessian != "identity" or self.inner_data != "validation" or self.reuse > 1
        ):
            raise ValueError(
                f"parameters={list(self.parameters)} works with hessian=identity, "
                f"inner_data=validation and reuse=1, got {self.hessian}, {self.inner_data} and "
                f"{self.reuse}"
            )
        check_options(self.hessian, self.hessian_options)
        self.objective(1, ())

    def objective(self, positive: int, sizes: tuple[int, ...]) -> RatioObjective:
        """What the ratios minimise, for a positive class code and the sizes of group columns."""
        return RatioObjective(
            self.fairness,
            self.accuracy_weight,
            self.fairness_weight,
            self.aggregate,
            self.reference,
            (positive,),
            self.soft,
            self.temperature,
            sizes,
        )

    def objective_of(self, schema: Schema, sizes: tuple[int, ...]) -> RatioObjective:
        """The same for the classes of a world and the sizes of its group columns."""
        positive = schema.klass(self.positive) if self.uses_positive else 1
        return self.objective(positive, sizes if self.each else ())

    def init(self, world: World, start: State | None, rng: Rng) -> State:
        """The world's rows, real and generated, or what an earlier loop of a chain has gathered."""
        state = start or State(first_rows(world.data, self.rows))
        check_world(self, world, state.data, rng)
        return state

    def step(self, world: World, state: State, round: int, rng: Rng) -> tuple[State, Notes]:
        """Hold rows out, update the shares after every batch of n_yz = B pi_y lambda_yz, train."""
        mixture = Mixture(self, world, state, round, rng)  # held-out rows; generated ones
        if self.method == "frozen":
            mixture = mixture.scouted()  # a first model learns the ratios, this one keeps them
        model = mixture.model()
        sampler, objective, by, rows = mixture.arm(model)
        fitted = mixture.fit(model, rows, by, rng.at("fit"), sampler, objective)
        reference = mixture.reference() if self.against == "real" else None
        after = mixture.state(fitted.model, reference)
        return after, mixture.notes(after.models["classifier"], reference)

    def foreseen(self, world: World) -> tuple[str, ...]:
        """Rows of every cell and source, and what cells lack, said before any training."""
        return foreseen(self, world)

    def make(self, world: World, rng: Rng) -> GroupedData:
        """Generated rows of every cell from all real rows of the world, for files."""
        real = first_rows(world.data, self.rows)
        real = real.take(~is_generated(real))
        return made_rows(self, world, group_columns(world), real, rng)

    def controller(
        self, mixture: Mixture, model: torch.nn.Module, rng: Rng
    ) -> RatioController | None:
        """What moves the ratios while `model` trains; None where nothing does."""
        if self.method not in ("ratios", "real_ratios", "frozen") or mixture.kept_ratios:
            return None
        return RatioController(
            model,
            mixture.ratios,
            self.objective_of(mixture.schema, mixture.cells.sizes),
            mixture.validation(),
            generator=rng.gen(),
            head=self.head,
            parameters=self.parameters or None,
            hessian=self.hessian,
            hessian_options=self.hessian_options,
            every=self.ratio_every,
            warmup=self.warmup,
            lr=self.ratio_lr,
            schedule=self._decayed if self.ratio_decay else None,
            optimizer=self.ratio_optimizer,
            entropy=self.entropy,
            draw=self.draw,
            per_cell=self.per_cell,
            size=self.size,
            reuse=self.reuse or None,
            chunk=mixture.world.recipe.eval_batch,
            inner_data=self.inner_data,
            freeze_norm=self.freeze_norm,
        )

    @property
    def uses_positive(self) -> bool:
        """Whether the gap is about one class."""
        return self.fairness in ("eqopp", "dp", "dp_cellwise")

    def _decayed(self, update: int) -> float:
        """Factor on `ratio_lr` of an update."""
        return 1 / (1 + self.ratio_decay * update)

"""What is compared. An arm is a way to spend the second half of the training compute, from one and the same model (but for
those that begin from scratch and spend both halves, and the experiments as they are).

All arms share data, model, loss at S = 1, optimiser, learning rate as a function of the compute used, validation, and the
number of seconds. So a step that costs more leaves fewer updates.
"""

from dataclasses import dataclass

__all__ = ["ARMS", "FEW_LENGTH", "MODELS", "Arm"]

#: model of the study -> experiment in which S = 1 is trained
MODELS = {"egnn": "static_egnn", "painn": "static_painn", "schnet": "static_schnet"}

_SIMULATIONS = "callbacks.on_policy.simulations"
_HOT = (f"{_SIMULATIONS}.kinetic_energy=1.5", f"{_SIMULATIONS}.time_step=2")
_LABELS, _SCHEDULE, _GOAL = (f"callbacks.on_policy.{group}" for group in ("labels", "schedule", "goal"))
_UNTIL_THEY_LAST = f"{_SCHEDULE}.extra_rounds=12"
_FULL = ("task/gradient=full", "task.first_step_weight=1")


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Args:
        title: for the tables.
        length: S at the end; it grows linearly with the compute used.
        begin: share of the compute at which the growth begins; S is 1 until then, or 2 if it begins at once.
        overrides: of the training config.
        labels: which further states are labelled by the reference method, at the cost of training: ``visited`` ones
            (`spk_dt.training.OnPolicyLabels`), as many ``displaced`` training frames (`benchmarks.study.displaced`), or as
            in the experiments ``dt_on_policy`` (states drawn at random) and ``dt_last`` (where simulations go wrong).
        constant: S is `length` from the beginning.
        converged: S grows when the learning rate has come down to its floor (`spk_dt.training.Converged`), as in the paper,
            up to `length` if there is time.
        scratch: begins with a new model, for the seconds of both halves, with one learning rate that falls all the time.
        whole: an experiment of the package as it is, but for `overrides`, from scratch, for as long as it takes.
        frames: where there are few windows, train on all frames of the windows instead of the first ones.
    """

    title: str
    length: int = 1
    overrides: tuple[str, ...] = ()
    labels: str | None = None
    begin: float = 0.0
    constant: bool = False
    converged: bool = False
    scratch: bool = False
    whole: bool = False
    frames: bool = False

    @property
    def experiment(self) -> str:
        """That an arm without ``scratch`` is made of."""
        return self.labels if self.labels in ("dt_on_policy", "dt_last") else "dt_finetune"

    @property
    def callbacks(self) -> tuple[str, ...]:
        """Callbacks of the training that not all arms have."""
        if self.experiment != "dt_finetune":
            return ("hardening",) if self.labels == "dt_last" else ("on_policy",)
        return ("curriculum", "on_policy") if self.labels else ("curriculum",)


#: frames of a window where there are few; no arm of such a study may roll out further
FEW_LENGTH = 16

#: reference calculations of arms that tell few labels from many, and chosen ones from those drawn at random
FEW_LABELS = (30, 60)

#: by name; ``default`` and ``early`` are not for equal seconds, ``control`` is conventional training
ARMS: dict[str, Arm] = {
    "default": Arm("dt_egnn, dt_painn, dt_schnet as they are", whole=True, scratch=True),
    "early": Arm(
        "the same with a round every second epoch, until the labels are used up",
        overrides=(f"{_SCHEDULE}.every_n_epochs=2",),
        whole=True,
        scratch=True,
    ),
    "control": Arm("S = 1 continued (control)"),
    "frames": Arm("S = 1 on all frames of the windows", frames=True),
    "paper": Arm(
        "detached, S to 8, step 0 x 50 (the paper)", 8, ("task/gradient=detached", "task.first_step_weight=50")
    ),
    "detached": Arm("detached, S to 8, equal weights", 8, ("task/gradient=detached", "task.first_step_weight=1")),
    "truncated": Arm(
        "truncated(4), S to 16, equal weights",
        16,
        ("task/gradient=truncated", "task.gradient.k=4", "task.first_step_weight=1"),
    ),
    "full2": Arm("full, S = 2, equal weights", 2, _FULL),
    "full4": Arm("full, S to 4, equal weights", 4, _FULL),
    "full8": Arm("full, S to 8, equal weights", 8, _FULL),
    "full16": Arm("full, S to 16, equal weights", 16, _FULL),
    "full32": Arm("full, S to 32, equal weights", 32, _FULL),
    "full16_50": Arm("full, S to 16, step 0 x 50", 16, ("task/gradient=full", "task.first_step_weight=50")),
    "full16_rising": Arm("full, S to 16, weights rising by 1.15 a step", 16, (*_FULL, "task.step_weight_ratio=1.15")),
    "full16_falling": Arm("full, S to 16, weights falling by 1.15 a step", 16, (*_FULL, "task.step_weight_ratio=0.87")),
    "full32_last": Arm(
        "full, S to 32, weights doubling (the last counts half)", 32, (*_FULL, "task.step_weight_ratio=2")
    ),
    "full64_last": Arm(
        "full, S to 64, weights rising by 1.5 a step (the last counts a third)",
        64,
        (*_FULL, "task.step_weight_ratio=1.5"),
    ),
    "full16_energy": Arm(
        "full, S to 16, equal weights, with energies", 16, (*_FULL, "task.rollout_outputs=[forces,energy]")
    ),
    "full16_constant": Arm("full, S = 16 at once, equal weights", 16, _FULL, constant=True),
    "full16_late": Arm("full, S to 16 in the last half of the seconds, equal weights", 16, _FULL, begin=0.5),
    "full16_converged": Arm("full, S grows when converged, equal weights", 16, _FULL, converged=True),
    "full16_drawn": Arm(
        "full, S drawn up to 16, equal weights", 16, (*_FULL, "task._target_=benchmarks.study.variants.DrawnLength")
    ),
    "full16_motion": Arm(
        "full, S to 16, equal weights, positions and velocities at the end",
        16,
        (*_FULL, "task._target_=benchmarks.study.variants.MotionLoss"),
    ),
    "scratch": Arm("S = 1 from scratch, learning rate not reset", scratch=True),
    "scratch_full16": Arm("full, S to 16 from scratch, equal weights", 16, _FULL, scratch=True),
    "visits": Arm("S = 1 and on-policy labels", labels="visited"),
    "visits_hot": Arm("S = 1 and on-policy labels, hotter and further", 1, _HOT, labels="visited"),
    "visits_until": Arm(
        "S = 1 and on-policy labels, hotter and further, until simulations last",
        1,
        (*_HOT, _UNTIL_THEY_LAST),
        labels="visited",
    ),
    "visits_hotter": Arm(
        "S = 1 and on-policy labels, far hotter, until simulations last",
        1,
        (f"{_SIMULATIONS}.kinetic_energy=4", f"{_SIMULATIONS}.time_step=2", _UNTIL_THEY_LAST),
        labels="visited",
    ),
    "drawn": Arm("S = 1 and on-policy labels, states drawn at random", labels="dt_on_policy"),
    "hardened": Arm("S = 1 and hardening (dt_last)", labels="dt_last"),
    **{
        f"drawn_{n}": Arm(
            f"S = 1 and on-policy labels, {n} states drawn at random in 10 rounds",
            overrides=(f"{_LABELS}.n_labels={n // 10}", f"{_SCHEDULE}.n_rounds=10", f"{_SCHEDULE}.extra_rounds=0"),
            labels="dt_on_policy",
        )
        for n in FEW_LABELS
    },
    **{
        f"hardened_{n}": Arm(
            f"S = 1 and hardening, at most {n} labels", overrides=(f"{_GOAL}.max_labels={n}",), labels="dt_last"
        )
        for n in FEW_LABELS
    },
    "full8_visits": Arm("full, S to 8, and on-policy labels, hotter and further", 8, (*_FULL, *_HOT), labels="visited"),
    "displaced": Arm("S = 1 and displaced training frames", labels="displaced"),
}

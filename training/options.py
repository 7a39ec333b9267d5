"""How a grid is run, as opposed to what it asks: order, limits, budgets."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Order = Literal["by_seed", "by_combination", "random"]


class Options(BaseModel):
    """Options of one run; the last part of the grid DAG's form is made from this schema."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials_per_task: int = Field(
        0,
        ge=0,
        description="Trials that one task runs in a row; 0 chooses by what a trial has taken.",
    )
    only_missing: bool = Field(
        True, description="Leave out the trials that have finished before; their results count."
    )
    order: Order = Field(
        "by_seed",
        description="by_seed: every combination with the first seed, then with the next; "
        "by_combination: all seeds of a combination, then the next; random: a fair part of the "
        "grid when a budget ends it. Trials that failed before come last.",
    )
    time_limit_s: float = Field(
        0, ge=0, description="Seconds after which a trial is stopped, as failed; 0: no limit."
    )
    budget_s: float = Field(
        0,
        ge=0,
        description="Seconds after which no more trials are begun; 0: no limit. "
        "Trigger this again for the trials that are left.",
    )
    budget_trials: int = Field(
        0, ge=0, description="Trials to run at most; 0: no limit. The rest stays pending."
    )
    on_failed_trials: Literal["succeed", "fail"] = Field(
        "succeed",
        description="How the run ends when some trials have failed. "
        "It always fails when none has finished.",
    )

"""A grid search from end to end: planning its trials, running a shard of them, summing up."""

from training.search.dashboard import dashboard_url
from training.search.planning import plan
from training.search.running import run
from training.search.summary import summarise

__all__ = ["dashboard_url", "plan", "run", "summarise"]

"""The address of the dashboard that shows one experiment."""

from __future__ import annotations

from urllib.parse import quote

DASHBOARD = "/superset/dashboard/experiments/"
# As in include/superset/assets/dashboards/experiments.yaml.
FILTER = "NATIVE_FILTER-experiment"


def dashboard_url(superset_url: str, experiment: str) -> str:
    """The experiments' dashboard with its filter set to one experiment.

    Superset reads the filters from the address in Rison, a JSON for addresses.
    """
    name = "'" + experiment.replace("!", "!!").replace("'", "!'") + "'"
    state = f"(label:{name},validateStatus:!f,value:!({name}))"
    extra = f"(filters:!((col:experiment,op:IN,val:!({name}))))"
    filters = f"({FILTER}:(extraFormData:{extra},filterState:{state},id:{FILTER},ownState:()))"
    return f"{superset_url}{DASHBOARD}?native_filters={quote(filters, safe='!()*,:')}"

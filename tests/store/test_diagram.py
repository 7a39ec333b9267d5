"""The documentation shows the tables as they are."""

from mled.settings import ROOT
from mled.store.diagram import mermaid


def test_the_diagram_in_the_docs_is_that_of_the_models():
    text = (ROOT / "docs" / "store.md").read_text()
    shown = text.partition("```mermaid\n")[2].partition("```")[0]
    assert shown == mermaid(), "put the output of `mled store diagram` into docs/store.md"

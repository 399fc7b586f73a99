"""The model as a picture: its stages with layers and shapes, drawn by Graphviz.

One box a layer, as ``keras.utils.plot_model`` draws, makes a U-Net of 60 boxes that nobody reads. Here the layers of
one stage share a box, and stages of one size share a row, so that a U-Net has the shape of its name.
"""

from __future__ import annotations

import html
import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import keras

from unet_training.files import replacing
from unet_training.report.page import Picture
from unet_training.report.stages import Stage, stages

_DPI = 110
_SECONDS = 60
"""Graphviz takes less than one for a U-Net; some graphs keep it busy for hours."""

_BOXES_A_ROW = 8
"""Where more stages are of one size, rows are too wide to read, and the stages go from top to bottom."""


def picture(model: keras.Model, path: Path) -> tuple[Picture | None, str]:
    """Draw ``model`` with the shape of every stage.

    Returns:
        The picture and "", or None and what is missing and how to install it.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    if importlib.util.find_spec("pydot") is None:
        return None, "the Python package pydot is not installed: pip install pydot"
    program = shutil.which("dot")
    if program is None:
        return None, "Graphviz's program dot was not found on the PATH: apt-get install graphviz"
    found, edges = stages(model)
    drawn = _run(program, _source(found, edges))
    if isinstance(drawn, str):
        return None, drawn
    with replacing(path) as temporary:
        temporary.write_bytes(drawn)
    shape = " x ".join(str(side) for side in model.output_shape[1:])
    return Picture.read(path, f"The model's {len(found)} stages with their layers, from the photo to {shape}."), ""


def _run(program: str, source: str) -> bytes | str:
    """The PNG, or why there is none."""
    try:
        ended = subprocess.run(
            [program, "-Tpng", f"-Gdpi={_DPI}"],
            input=source.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} failed ({error}): try apt-get install --reinstall graphviz"
    if ended.returncode or not ended.stdout:
        reason = " ".join(ended.stderr.decode(errors="replace").split())[:300]
        return f"{program} failed ({reason}): try apt-get install --reinstall graphviz"
    return ended.stdout


def _source(found: Sequence[Stage], edges: Sequence[tuple[int, int]]) -> str:
    """The graph in Graphviz's language."""
    import pydot  # beside Graphviz's program optional: without it the report lacks a picture, no more

    graph = pydot.Dot("model", graph_type="digraph", nodesep="0.3", ranksep="0.45", bgcolor="white")
    graph.set_node_defaults(shape="plain", fontname="Helvetica", fontsize="10")
    graph.set_edge_defaults(color="#555555", arrowsize="0.7")
    for index, stage in enumerate(found):
        graph.add_node(pydot.Node(str(index), label=_label(stage)))
    areas = [_area(stage) for stage in found]
    rows = {area: [index for index, other in enumerate(areas) if other == area] for area in areas}
    by_size = max(map(len, rows.values())) <= _BOXES_A_ROW
    for members in rows.values() if by_size else ():
        row = pydot.Subgraph(rank="same")
        for index in members:
            row.add_node(pydot.Node(str(index)))
        graph.add_subgraph(row)
    for start, end in edges:
        if by_size and areas[start] < areas[end]:
            # Graphviz puts an edge's end below its start: told the other way round, larger stages stay above.
            graph.add_edge(pydot.Edge(str(end), str(start), dir="back"))
        else:
            graph.add_edge(pydot.Edge(str(start), str(end)))
    return str(graph.to_string())


def _area(stage: Stage) -> int:
    """Pixels of what the stage puts out; 0 where its shape is not (n, h, w, channels)."""
    match stage.shape:
        case (_, int(height), int(width), _):
            return height * width
    return 0


def _label(stage: Stage) -> str:
    """Title, layers, shape and number of parameters, as a table."""
    layers = '<BR ALIGN="LEFT"/>'.join(html.escape(layer) for layer in stage.layers)
    shape = " x ".join("n" if side is None else str(side) for side in stage.shape)
    parameters = f"<BR/>{stage.parameters:,} parameters" if stage.parameters else ""
    return (
        '<<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0" CELLPADDING="4" COLOR="#8a94a6">'
        f'<TR><TD BGCOLOR="#dce6f2"><B>{html.escape(stage.name)}</B></TD></TR>'
        f'<TR><TD ALIGN="LEFT" BALIGN="LEFT">{layers}<BR ALIGN="LEFT"/></TD></TR>'
        f'<TR><TD BGCOLOR="#f4f6f9">{shape}{parameters}</TD></TR></TABLE>>'
    )

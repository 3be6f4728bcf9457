"""Explorer: look at any sample of a finished run, and at texts and images of your own, in widgets.

Choose by kind, label, split, mistakes of a model, name or position, on the map, or by the nearest neighbours of what
is shown. All controls are ordinary ones, so each is reached by Tab and works by keys. Saved notebooks, reports and
notebooks that nobody looks at (papermill) hold the first sample as a table with images instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from trm_nb.errors import DamagedError, RejectedError, UserError
from trm_nb.notebook import sampling
from trm_nb.notebook.explorer import pieces
from trm_nb.notebook.explorer.collection import ANY, NEIGHBOURS, Collection, Filter
from trm_nb.notebook.explorer.look import Look, Thought, look_at, look_at_file, look_at_text, think
from trm_nb.notebook.explorer.sample_map import SampleMap
from trm_nb.notebook.progress_view import live_front_end
from trm_nb.notebook.views import NO_LABEL

if TYPE_CHECKING:
    from trm_nb.pipeline.run import Run

NO_MODEL = "no model"


class Explorer:
    """A run's samples, to be looked at one by one; display it as a cell's last expression.

    Args:
        run: a run whose dataset is finished.
        model: whose predictions are shown first; None: the run's own, or its first one.

    Raises:
        UserError: where there is no finished dataset, or no model of this name.
    """

    def __init__(self, run: Run, model: str | None = None) -> None:
        self.collection = Collection(run)
        models = self.collection.models
        if model is not None and model not in models:
            known = f"expected one of {', '.join(models)}" if models else "this run has no finished model"
            raise UserError(f"{run.path}: {known}, got model={model!r}")
        first = run.config.model if run.config.model in models else next(iter(models), None)
        self._model: str | None = model or first
        self._matching = self.collection.matching(Filter())
        self.look: Look = look_at(self.collection, int(self._matching[0]))
        self.thought: Thought | None = self._think()
        self._quiet = False
        self._box: Any = None

    # -- what a saved notebook holds --------------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        """The sample that is looked at, without anything live."""
        about = f"{len(self.collection.table):,} samples; in JupyterLab this cell is an explorer of them. One of them:"
        return pieces.static(self.look, self.thought, self._neighbour_rows(), about)

    def __repr__(self) -> str:
        return f"Explorer of {self.collection.run.path}, at {self.look.name!r}"

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        if live_front_end():
            display(self.widget)  # type: ignore[no-untyped-call]
        display(HTML(self._repr_html_()))  # type: ignore[no-untyped-call]

    def _neighbour_rows(self) -> list[dict[str, str]]:
        table = self.collection.table
        return [
            {
                "neighbour": pieces.short(table["sample_id"].iloc[one.place]),
                "label": pieces.short(_label(table["label"].iloc[one.place]), 40),
                "distance": f"{one.distance:.2f}",
            }
            for one in self.look.neighbours
        ]

    # -- the widgets ------------------------------------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The live explorer, an ipywidgets.VBox."""
        if self._box is None:
            self._build()
            self._show()
        return self._box

    def _build(self) -> None:
        import ipywidgets as w

        c, narrow = self.collection, w.Layout(width="155px")
        column = {"description_width": "45px"}

        def chooser(name: str, values: list[str]) -> Any:
            return w.Dropdown(options=_options(values), description=name, layout=narrow, style=column)

        self.kind = chooser("kind", c.values("modality"))
        self.label = chooser("label", c.values("label"))
        self.split = chooser("split", c.values("split"))
        self.contains = w.Text(description="name", placeholder="part of it", layout=narrow, style=column)
        self.contains.continuous_update = False
        names = [*c.models] or [NO_MODEL]
        self.model = w.Dropdown(
            options=names, value=self._model or NO_MODEL, description="model", layout=narrow, style=column
        )
        self.wrong = w.Checkbox(
            description="only its mistakes", indent=False, layout=w.Layout(width="150px"), disabled=not c.models
        )
        self.position = w.IntSlider(
            min=1, max=len(self._matching), description="sample", continuous_update=False,
            style={"description_width": "55px"}, layout=w.Layout(width="520px"),
        )  # fmt: skip
        self.previous, self.next = (
            w.Button(description=name, layout=w.Layout(width="90px")) for name in ("previous", "next")
        )
        self.found, self.says, self.head, self.images, self.attention, self.predicted = (w.HTML() for _ in range(6))
        self.step = w.IntSlider(min=1, max=1, description="step", style=column, layout=w.Layout(width="330px"))
        self.near = [
            (w.HTML(), w.Button(description="show", layout=w.Layout(width="100px"))) for _ in range(NEIGHBOURS)
        ]
        self.text = w.Textarea(placeholder="Type a text", layout=w.Layout(width="420px", height="76px"))
        self.text_button = w.Button(description="show the text", layout=w.Layout(width="140px"))
        self.upload = w.FileUpload(description="show a file", multiple=False, layout=w.Layout(width="140px"))
        self.map = SampleMap(c, lambda place: self._guarded(lambda: self.choose(place)))
        self._box = w.VBox([
            w.HTML(pieces.STYLE),
            w.HBox([self.kind, self.label, self.split, self.contains, self.model, self.wrong], layout=_WRAP),
            w.HBox([self.position, self.previous, self.next, self.found], layout=_WRAP),
            self.says,
            w.HBox([self.map.box, w.VBox([self.head, self.images], layout=w.Layout(width="545px"))], layout=_WRAP),
            w.HTML("<h4>What each capsule attends to</h4>"), self.attention,
            w.HBox([
                w.VBox([w.HTML("<h4>Nearest neighbours, by distance of the capsules</h4>"),
                        w.HBox([w.VBox(list(slot)) for slot in self.near], layout=_WRAP)]),
                w.VBox([w.HTML("<h4>Prediction after each recursion step</h4>"), self.step, self.predicted],
                       layout=w.Layout(width="335px")),
            ], layout=_WRAP),
            w.HTML("<h4>Your own text or file, rendered and encoded as this run's samples were</h4>"),
            w.HBox([self.text, w.VBox([self.text_button, self.upload])], layout=_WRAP),
        ])  # fmt: skip
        self._box.add_class(pieces.LIVE)
        self._listen()

    def _listen(self) -> None:
        for control in (self.kind, self.label, self.split, self.contains, self.wrong):
            control.observe(lambda change: self._guarded(self._filter), names="value")
        self.model.observe(lambda change: self._guarded(self._other_model), names="value")
        self.position.observe(lambda change: self._guarded(self._to_position), names="value")
        self.previous.on_click(lambda button: self._guarded(lambda: self._go(-1)))
        self.next.on_click(lambda button: self._guarded(lambda: self._go(1)))
        self.step.observe(lambda change: self._guarded(self._show_step), names="value")
        for number, (_, button) in enumerate(self.near):
            button.on_click(lambda _, n=number: self._guarded(lambda: self.choose(self.look.neighbours[n].place)))
        self.text_button.on_click(lambda button: self._guarded(lambda: self.show_text(self.text.value)))
        self.upload.observe(lambda change: self._guarded(self._take_upload), names="value")

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do what a control asks for; what the user can correct is said above the sample."""
        if self._quiet:
            return
        try:
            self.says.value = ""
            action()
        except (UserError, DamagedError, RejectedError) as error:
            self.says.value = f'<div class="trm-says" role="alert">{escape(str(error))}</div>'

    @contextmanager
    def _silently(self) -> Iterator[None]:
        """Set controls without having them act."""
        self._quiet, before = True, self._quiet
        try:
            yield
        finally:
            self._quiet = before

    # -- what controls do -------------------------------------------------------------------------------------------

    def choose(self, place: int) -> None:
        """Look at a sample of the run, by its index in the dataset."""
        self._take(look_at(self.collection, place))

    def show_text(self, text: str) -> None:
        """Look at a text of your own."""
        self._take(look_at_text(self.collection, text))

    def show_file(self, name: str, data: bytes) -> None:
        """Look at a file of your own."""
        self._take(look_at_file(self.collection, name, data))

    def _take(self, look: Look) -> None:
        self.look = look
        self.thought = self._think()
        if self._box is not None:
            self._show()

    def _think(self) -> Thought | None:
        return think(self.collection, self.look, self._model) if self._model else None

    def _filter(self) -> None:
        wanted = Filter(
            self.kind.value, self.label.value, self.split.value, self._model if self.wrong.value else None,
            self.contains.value.strip(),
        )  # fmt: skip
        matching = self.collection.matching(wanted)
        if not len(matching):
            raise UserError("no sample passes these filters; choose others")
        self._matching = matching
        with self._silently():
            self.position.max, self.position.value = len(matching), 1
        self.choose(int(matching[0]))

    def _other_model(self) -> None:
        self._model = self.model.value
        if self.wrong.value:
            self._filter()
        else:
            self._take(self.look)

    def _to_position(self) -> None:
        self.choose(int(self._matching[self.position.value - 1]))

    def _go(self, by: int) -> None:
        self.position.value = min(max(1, self.position.value + by), self.position.max)

    def _take_upload(self) -> None:
        for file in self.upload.value:
            self.show_file(file["name"], bytes(file["content"]))
        with self._silently():
            self.upload.value = ()

    # -- what is shown ----------------------------------------------------------------------------------------------

    def _show(self) -> None:
        look = self.look
        with self._silently():
            here = self._matching.searchsorted(look.place) if look.place is not None else len(self._matching)
            if here < len(self._matching) and self._matching[here] == look.place:
                self.position.value = int(here) + 1
            self.step.max = max(1, len(self.thought.steps) if self.thought else 1)
            self.step.value = self.step.max
            self.map.mark(look.place)
        self.found.value = f"of {len(self._matching):,} that pass"
        self.head.value, self.images.value, self.attention.value = (
            pieces.facts(look), pieces.images(look), pieces.attention(look),
        )  # fmt: skip
        self._show_neighbours()
        self._show_step()

    def _show_neighbours(self) -> None:
        rows = self.collection.table.iloc[[one.place for one in self.look.neighbours]]
        images = sampling.images_of(self.collection.run, rows)
        for number, (thumb, button) in enumerate(self.near):
            there = number < len(rows)
            button.disabled = not there
            if there:
                row = rows.iloc[number]
                distance = self.look.neighbours[number].distance
                thumb.value = pieces.thumbnail(images[number], row["sample_id"], _label(row["label"]), distance)
                button.tooltip = f"look at neighbour {number + 1}"
            else:
                thumb.value = ""

    def _show_step(self) -> None:
        self.step.disabled = self.step.max == 1
        none = "<p>This run has no finished model; notebook 06 trains one.</p>"
        self.predicted.value = pieces.prediction(self.thought, self.step.value) if self.thought else none


_WRAP = {"flex_flow": "row wrap"}


def _options(values: list[str]) -> list[tuple[str, str]]:
    """What a drop-down shows, and the value behind it."""
    return [(ANY, ANY), *((value if len(value) <= 40 else f"{value[:37]}…", value) for value in values)]


def _label(value: Any) -> str:
    return NO_LABEL if pd.isna(value) else str(value)

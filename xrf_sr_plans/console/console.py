"""`Console`: progress, news and approval at a prompt, and the survey that was flown last."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bluesky import RunEngine

from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import By
from xrf_sr_plans.approval.states import RegionState
from xrf_sr_plans.config.logs import pass_on
from xrf_sr_plans.console import hooks
from xrf_sr_plans.console.answers import USAGE, AnswerReader, parsed
from xrf_sr_plans.console.news import RunNews
from xrf_sr_plans.console.screen import Screen, ScreenHandler
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.survey_design import design_survey
from xrf_sr_plans.plans.timing import RowProgress
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.review.remembered import Remembered
from xrf_sr_plans.store.run_store import RunStore

logger = logging.getLogger(__name__)

_LOGGER = "xrf_sr_plans"
_TOLD = ("plans", "session", "approval", "console", "page", "review.report_process")
"""Parts of the package whose decisions are told at the prompt, and not only what goes wrong."""


class RegionList(list[RegionState]):
    """The regions of a survey, as a prompt shows them."""

    def __str__(self) -> str:
        return "\n".join(_line(state) for state in self) or "no regions"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("RegionList(...)" if cycle else str(self))


def _line(state: RegionState) -> str:
    region = state.region
    return (
        f"  {state.number}. {','.join(region.elements) or 'any element'}"
        f" x {region.x_low_um:.4g}..{region.x_high_um:.4g},"
        f" y {region.y_low_um:.4g}..{region.y_high_um:.4g} um, {state.time_s:.3g} s:"
        f" {state.disposition}: {state.reason}"
    )


class Console:
    """What a session shows and takes at its prompt. `start_session` makes it.

    Parameters
    ----------
    run_engine
        The RunEngine.
    beamline
        The beamline.
    desk
        Where people decide about regions; None: nobody can.
    store
        Where surveys are remembered; None: nowhere.
    screen
        Where lines are shown; None: the terminal.

    Attributes
    ----------
    latest : LatestSurvey
        The survey that was flown last. It is a sink of result runs, too.
    remembered : Remembered
        All surveys that are kept.
    """

    def __init__(
        self,
        run_engine: RunEngine,
        beamline: Beamline,
        desk: ApprovalDesk | None,
        store: RunStore | None = None,
        screen: Screen | None = None,
    ) -> None:
        self.latest = LatestSurvey()
        self.screen = screen or Screen()
        self._run_engine = run_engine
        self._desk = desk
        self.remembered = Remembered(store)
        self._progress = RowProgress(show=self.screen.progress)
        self._news = RunNews(self.screen, self._progress, has_shutter=beamline.shutter is not None)
        self._answers = AnswerReader(self._answer, lambda: run_engine.state == "running")
        self._undo: list[Callable[[], object]] = []

    @property
    def result_sinks(self) -> list[Callable[[str, dict[str, Any]], None]]:
        """What takes the result runs."""
        return [self.latest, self._news.results]

    def open(self) -> None:
        """Begin to show what happens."""
        engine = self._run_engine
        for subscriber in (self._progress, self._news, self.latest):
            token = engine.subscribe(subscriber)
            self._undo.append(lambda token=token: engine.unsubscribe(token))
        if engine.waiting_hook is None:
            hook = self._progress.waiting_hook
            engine.waiting_hook = hook  # type: ignore[assignment]
            self._undo.append(lambda: setattr(engine, "waiting_hook", None))
        handler = ScreenHandler(self.screen)
        logging.getLogger(_LOGGER).addHandler(handler)
        self._undo.append(lambda: logging.getLogger(_LOGGER).removeHandler(handler))
        for part in _TOLD:
            self._undo.append(pass_on(f"{_LOGGER}.{part}", logging.INFO))
        self._undo.append(hooks.quiet_run_engine(engine))
        if self._desk is not None:
            self._desk.waiting = self._waiting

    def show_in_ipython(self, names: Mapping[str, Any]) -> None:
        """Put names into the namespace of IPython, if there is one, and show pauses as one line."""
        shell = hooks.ipython_shell()
        if shell is None:
            return
        hooks.show_interruptions(shell, self._paused)
        taken = hooks.put_into(shell, names)
        if taken:
            logger.warning(
                "%s: there are such names already; use session.names[...]", ", ".join(taken)
            )

    def close(self) -> None:
        """Show nothing any more."""
        self._answers.end()
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    @property
    def names(self) -> dict[str, Any]:
        """What is typed at the prompt besides plans, by name."""
        return {
            "preview": preview,
            "design_survey": design_survey,
            "latest_survey": self.latest,
            "surveys": self.remembered.surveys,
            "survey": self.remembered.survey,
            "regions": self.regions,
            "approve": self.approve,
            "deny": self.deny,
            "edit": self.edit,
            "add_region": self.add_region,
        }

    # Approval -----------------------------------------------------------------------------------

    def regions(self, survey: str | None = None) -> RegionList:
        """Return the regions of a survey with what was decided about them.

        Parameters
        ----------
        survey
            Its uid, or how that begins; None: the survey that proposed regions last.

        Raises
        ------
        RefusedError
            There is no such survey.
        """
        folder, uid = self._survey(survey)
        return RegionList(folder.regions(uid))

    def approve(self, *numbers: int, why: str = "", survey: str | None = None) -> RegionList:
        """Let regions be flown: those with these numbers, or all that are undecided.

        If a plan waits, it flies them. If none does, ``RE(rescan_approved())`` does.

        Parameters
        ----------
        *numbers
            Numbers of the regions, as lists and pictures have them.
        why
            The reason; documents keep it.
        survey
            As of `regions`.

        Raises
        ------
        RefusedError
            There is no such region, or it is flown or queued already.
        """
        return self._said(lambda folder, uid, by: folder.approve(uid, *numbers, by=by), why, survey)

    def deny(self, *numbers: int, why: str = "", survey: str | None = None) -> RegionList:
        """Let regions not be flown; see `approve`."""
        return self._said(lambda folder, uid, by: folder.deny(uid, *numbers, by=by), why, survey)

    def edit(
        self,
        number: int,
        *,
        pad_um: float = 0.0,
        why: str = "",
        survey: str | None = None,
        **edges: float,
    ) -> RegionList:
        """Change the rectangle of a region; it still has to be approved if it wasn't.

        Parameters
        ----------
        number
            Number of the region.
        pad_um
            Margin in um that is added on every side; below 0 it is taken away.
        why, survey
            As of `approve`.
        **edges
            New edges in um: ``x_low_um``, ``x_high_um``, ``y_low_um``, ``y_high_um``.

        Raises
        ------
        RefusedError
            There is no such region or edge, or nothing is left of the rectangle.
        """
        return self._said(
            lambda folder, uid, by: folder.edit(uid, number, pad_um=pad_um, by=by, **edges),
            why,
            survey,
        )

    def add_region(
        self,
        *,
        elements: Sequence[str] = (),
        why: str = "",
        survey: str | None = None,
        **edges: float,
    ) -> RegionList:
        """Add a region of one's own to a survey, which is approved thereby.

        Parameters
        ----------
        elements
            Elements that it is for; may be empty.
        why, survey
            As of `approve`.
        **edges
            ``x_low_um``, ``x_high_um``, ``y_low_um`` and ``y_high_um``, in um.

        Raises
        ------
        RefusedError
            An edge is missing, low is not below high, or it lies outside of the survey.
        """
        return self._said(
            lambda folder, uid, by: folder.draw(uid, elements=elements, by=by, **edges),
            why,
            survey,
        )

    def _survey(self, survey: str | None) -> tuple[ApprovalFolder, str]:
        if self._desk is None:
            raise RefusedError("this session has no approvals: it was started with approvals='off'")
        folder = self._desk.folder
        uids = folder.surveys()
        if survey is None:
            # A plan that waits is meant, whatever was proposed after it by others.
            waiting = self._desk.waits_for
            if waiting or uids:
                return folder, waiting or uids[0]
            raise RefusedError("no survey has proposed regions yet")
        matches = [uid for uid in uids if uid.startswith(survey)]
        if len(matches) != 1:
            what = "no survey" if not matches else f"{len(matches)} surveys"
            raise RefusedError(f"{what} with a uid that begins with {survey!r}")
        return folder, matches[0]

    def _said(
        self,
        say: Callable[[ApprovalFolder, str, By], list[RegionState]],
        why: str,
        survey: str | None,
    ) -> RegionList:
        folder, uid = self._survey(survey)
        states = RegionList(say(folder, uid, By(via="console", why=why)))
        ready = [state.number for state in states if state.ready]
        if ready and folder.waiting(uid) is None:
            numbers = ", ".join(map(str, ready))
            self.screen.tell(f"region {numbers} is approved and waits: RE(rescan_approved())")
        return states

    def _waiting(self, waits: bool) -> None:
        """Take answers while the RunEngine has the prompt and waits for them."""
        if waits:
            self.screen.tell(f"type {USAGE}")
            self._answers.begin()
        else:
            self._answers.end()

    def _answer(self, line: str) -> None:
        try:
            answer = parsed(line)
            values: dict[str, Any] = dict(answer.values)
            if answer.verb == "edit":
                number = answer.numbers[0] if answer.numbers else 0
                regions = self.edit(number, why=answer.why, **values)
            elif answer.verb == "add":
                regions = self.add_region(why=answer.why, **values)
            else:
                say = self.approve if answer.verb == "approve" else self.deny
                regions = say(*answer.numbers, why=answer.why)
        except RefusedError as error:
            self.screen.tell(str(error))
        except Exception as error:  # noqa: BLE001 - whatever was typed, the reader goes on
            logger.warning("%s: %s", line.strip(), error)
        else:
            self.screen.tell(str(regions))

    def _paused(self) -> str:
        where = self._news.where()
        at = f" at {where}" if where else ""
        shutter = ", shutter closed" if where and self._news.has_shutter else ""
        return f"paused{at}{shutter}: RE.resume() goes on, RE.stop() or RE.abort() ends it"

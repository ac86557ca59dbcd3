"""`page_app`: the web application, which tells what there is and passes on what people decide."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from xrf_sr_plans.approval.records import By
from xrf_sr_plans.errors import RefusedError, XrfSrError, in_words
from xrf_sr_plans.page.watched import WatchedSurveys

if TYPE_CHECKING:
    from xrf_sr_plans.approval.send import Queue

_PACKAGE = "xrf_sr_plans.page"
COOKIE = "xrf_sr_token"
HEADER = "x-xrf-sr"
"""Header that every decision must have: pages of others can't send it across sites."""
_MOST_BYTES = 2**20
_EDGES = ("x_low_um", "x_high_um", "y_low_um", "y_high_um")
_POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"


def page_app(
    surveys: WatchedSurveys,
    make_queue: Callable[[], Queue],
    *,
    token: str = "",
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]"),
) -> Starlette:
    """Return the application.

    Parameters
    ----------
    surveys
        What is shown.
    make_queue
        Makes what sends regions to the queue server.
    token
        What people must show before anything else; "": nothing, as on one's own machine.
    hosts
        Names under which the page may be asked for.
    """
    page = _Page(surveys, make_queue)
    routes = [
        Route("/", page.index),
        Route("/api/surveys", page.listed),
        Route("/api/surveys/{uid}", page.state),
        Route("/api/surveys/{uid}/maps/{layer}/{element}", page.image),
        Route("/api/surveys/{uid}/decide", page.decide, methods=["POST"]),
        Route("/api/surveys/{uid}/send", page.send, methods=["POST"]),
        Route("/surveys/{uid}/report.html", page.report),
        Mount("/static", StaticFiles(packages=[(_PACKAGE, "static")])),
    ]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)),
        Middleware(_Guard, token=token),
    ]
    handlers: Mapping[Any, Any] = {XrfSrError: _refused, json.JSONDecodeError: _refused}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": in_words(error)}, status_code=400)


class _Page:
    def __init__(self, surveys: WatchedSurveys, make_queue: Callable[[], Queue]) -> None:
        self._surveys = surveys
        self._make_queue = make_queue

    async def index(self, _: Request) -> Response:
        html = resources.files(_PACKAGE).joinpath("static/index.html").read_text("utf-8")
        headers = {"content-security-policy": _POLICY, "cache-control": "no-store"}
        return Response(html, media_type="text/html", headers=headers)

    async def listed(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._surveys.listed))

    async def state(self, request: Request) -> Response:
        """Tell everything of one survey, or nothing (204) if that is what was told last."""
        uid, query = request.path_params["uid"], request.query_params

        def found() -> dict[str, Any] | None:
            survey = self._surveys.survey(uid)
            if query.get("version") == survey.version:
                return None
            return survey.state(query.get("element"))

        state = await run_in_threadpool(found)
        return Response(status_code=204) if state is None else JSONResponse(state)

    async def image(self, request: Request) -> Response:
        params = request.path_params
        survey = await run_in_threadpool(self._surveys.survey, params["uid"])
        element = params["element"].removesuffix(".png")
        png = await run_in_threadpool(survey.image, params["layer"], element)
        # Its address has the version of the layer in it.
        headers = {"cache-control": "private, max-age=3600, immutable"}
        return Response(png, media_type="image/png", headers=headers)

    async def report(self, request: Request) -> Response:
        survey = await run_in_threadpool(self._surveys.survey, request.path_params["uid"])
        path = survey.home / "report.html"
        if not path.exists():
            raise RefusedError(f"there is no report of survey {survey.home.name!r} yet")
        return FileResponse(path, media_type="text/html")

    async def decide(self, request: Request) -> Response:
        """Take the decision of one person about one survey."""
        uid, wish = request.path_params["uid"], await _wish(request)
        return await self._changed(uid, wish, partial(self._decide, wish))

    async def send(self, request: Request) -> Response:
        """Let a plan that waits go on with what is approved, or else queue what is approved."""
        uid, wish = request.path_params["uid"], await _wish(request)
        return await self._changed(uid, wish, partial(self._send, wish))

    async def _changed(
        self, name: str, wish: Mapping[str, Any], change: Callable[[str], None]
    ) -> Response:
        survey = await run_in_threadpool(self._surveys.survey, name)
        await run_in_threadpool(change, survey.uid)
        return JSONResponse(await run_in_threadpool(survey.state, wish.get("element")))

    def _decide(self, wish: Mapping[str, Any], uid: str) -> None:
        folder, by, action = self._surveys.approvals, _by(wish), wish.get("action")
        if action in ("approve", "deny"):
            numbers = [int(number) for number in wish.get("numbers") or ()]
            if not numbers:
                raise RefusedError(f"no region is chosen to {action}")
            (folder.approve if action == "approve" else folder.deny)(uid, *numbers, by=by)
        elif action == "edit":
            folder.edit(uid, int(wish["number"]), by=by, **_edges(wish))
        elif action == "draw":
            folder.draw(uid, by=by, elements=_elements(wish), **_edges(wish))
        else:
            raise RefusedError(
                f"action is {action!r:.80}; 'approve', 'deny', 'edit' or 'draw' is needed"
            )

    def _send(self, wish: Mapping[str, Any], uid: str) -> None:
        folder = self._surveys.approvals
        if folder.waiting(uid) is not None:
            folder.decide(uid, [], by=_by(wish), complete=True)
        else:
            from xrf_sr_plans.approval.send import send_approved

            send_approved(folder, uid, self._make_queue())


async def _wish(request: Request) -> Mapping[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            raise RefusedError(f"a request has more than {_MOST_BYTES} bytes")
    wish = json.loads(body or b"{}")
    if not isinstance(wish, dict):
        raise RefusedError("a request is a JSON object")
    return wish


def _by(wish: Mapping[str, Any]) -> By:
    who, why = (str(wish.get(name) or "").strip()[:200] for name in ("who", "why"))
    return By(who=who, via="page", why=why) if who else By(via="page", why=why)


def _edges(wish: Mapping[str, Any]) -> dict[str, float]:
    edges = wish.get("edges")
    try:
        return dict(zip(_EDGES, (float(edge) for edge in edges or ()), strict=True))
    except (TypeError, ValueError):
        raise RefusedError(f"edges is {edges!r:.80}; four numbers in um are needed") from None


def _elements(wish: Mapping[str, Any]) -> list[str]:
    return [str(element) for element in wish.get("elements") or ()][:100]


class _Guard:
    """Let nobody in without the token, and no decision that another site's page makes."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        answer: ASGIApp = self._app
        if self._token:
            given = request.query_params.get("token")
            if given is not None and self._fits(given):
                answer = RedirectResponse(request.url.path, status_code=303)
                answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            elif not self._fits(request.cookies.get(COOKIE, "")):
                words = "Open the page with the address that the session showed, with its token."
                answer = Response(words, status_code=401, media_type="text/plain")
        if answer is self._app and request.method == "POST" and HEADER not in request.headers:
            answer = JSONResponse({"error": f"header {HEADER} is missing"}, status_code=403)
        await answer(scope, receive, send)

    def _fits(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._token.encode())

"""The page over HTTP: static files, JSON in and out, one worker for the model. Needs the extra
flmm[demo].

    GET  /  and the files of `STATIC`        the page
    GET  /api/about                          see `Endpoints.about`
    POST /api/picture   bytes of a file      a picture and its name, see `drawing.picture_view`
    POST /api/example   {"example"}          the same for one of the examples
    POST /api/ask       {"picture", "question", "history"}  lines of JSON, see `Endpoints.ask`
    POST /api/mark      {"answer", "phrases"}               masks, see `drawing.found_view`
    POST /api/mark-span {"answer", "span"}                  masks of characters [start, end]
    POST /api/ground    {"picture", "phrases", "each_alone"}  masks
    POST /api/look      {"picture", "question", "focus"}    see `drawing.look_view`
    GET  /api/result/NAME.png  .json         files to keep
    GET  /example/NUMBER                     an example's thumbnail

"ask", "mark", "mark-span" and "ground" may also name a "grounder" and its "outlines".

A mistake of the user is status 400 with {"error": what to do}.
"""

import json
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from flmm.web.drawing import answer_view, found_view, look_view, picture_view, thumbnail
from flmm.web.line import Line, Refused
from flmm.web.network import HostCheck
from flmm.web.requests import CHOICE, NUMBER, PAIRS, SPAN, TEXT, TEXTS, Uploads, read_fields
from flmm.web.session import Demo

STATIC = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "masks.js": ("masks.js", "text/javascript"),
    "server.js": ("server.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LEFT = 499  # of a request whose sender is gone; nobody reads it


class Endpoints:
    """The handlers of the addresses.

    Args:
        demo: the model and its recent results.
        about: description of the model for the page.
        examples: picture files to offer.
        history: whether the page tells the LMM the earlier questions and answers.
    """

    def __init__(self, demo: Demo, *, about: str, examples: Sequence[Path], history: bool = True):
        self.demo, self.about_model, self.examples = demo, about, list(examples)
        self.history = history
        self.model, self.files = Line("model"), Line("files")
        self.uploads = Uploads()

    def routes(self) -> list[Route]:
        """List the addresses with their handlers."""
        posts = {
            "picture": self.picture,
            "example": self.example,
            "ask": self.ask,
            "mark": self.mark,
            "mark-span": self.mark_span,
            "ground": self.ground,
            "look": self.look,
        }
        gets = {
            "/api/about": self.about,
            "/api/result/{name}": self.result,
            "/example/{number:int}": self.thumbnail,
        }
        gets |= {f"/{path}": self.static for path in STATIC}
        routes = []
        for name, run in posts.items():
            routes.append(Route(f"/api/{name}", explained(run), methods=["POST"]))
        for path, run in gets.items():
            routes.append(Route(path, explained(run), methods=["GET"]))
        return routes

    async def static(self, request: Request) -> Response:
        """Send a file of the page."""
        name, kind = STATIC[request.url.path[1:]]
        return Response(files("flmm.web").joinpath("static", name).read_bytes(), media_type=kind)

    async def about(self, request: Request) -> Response:
        """Return the description of the model, the examples, and the abilities: whether the LMM
        gets the history, whether there are closer looks, the grounders and the outlines."""
        return JSONResponse(
            {
                "model": self.about_model,
                "examples": [path.name for path in self.examples],
                "history": self.history,
                "looks": self.demo.makers.heads is not None,
                **self.demo.makers.offered(),
            }
        )

    async def picture(self, request: Request) -> Response:
        """Take a picture's file."""
        data = await self.uploads.read(request)
        name = unquote(request.headers.get("x-file-name", "")) or "the file"
        return JSONResponse(
            await self.files.run(lambda: picture_view(*self.demo.add_picture(data, name)), request)
        )

    async def example(self, request: Request) -> Response:
        """Take one of the examples."""
        path = self.chosen((await read_fields(request, example=NUMBER))["example"])

        def take() -> dict[str, Any]:
            return picture_view(*self.demo.add_picture(path.read_bytes(), path.name))

        return JSONResponse(await self.files.run(take, request))

    async def thumbnail(self, request: Request) -> Response:
        """Send an example as a small picture."""
        path = self.chosen(request.path_params["number"])
        small = await self.files.run(lambda: thumbnail(path.read_bytes(), path.name), request)
        return Response(small, media_type="image/jpeg")

    async def ask(self, request: Request) -> Response:
        """Answer a question in lines of JSON.

        {"ahead": requests before this one} whenever that changes, {"piece": text} while the LMM
        writes, and at last `drawing.answer_view`, or {"error", "status"}.
        """
        given = await read_fields(request, chosen=True, picture=TEXT, question=TEXT, history=PAIRS)
        self.demo.check_question(given["picture"], given["question"])
        given["history"] = [(asked, answer) for asked, answer in given["history"]]
        events = self.model.stream(
            lambda send: answer_view(self.demo.answer(**given, on_text=send))
        )
        first = await anext(events)  # what is refused at once has a status
        return StreamingResponse(_lines(first, events), media_type="application/x-ndjson")

    async def mark(self, request: Request) -> Response:
        """Ground words of an answer; without any, its noun chunks."""
        given = await read_fields(request, chosen=True, answer=TEXT, phrases=TEXTS)
        given["phrases"] = given["phrases"] or None
        return await self._model(lambda: found_view(self.demo.mark(**given)), request)

    async def mark_span(self, request: Request) -> Response:
        """Ground the words of an answer at one place."""
        given = await read_fields(request, chosen=True, answer=TEXT, span=SPAN)
        given["span"] = tuple(given["span"])
        return await self._model(lambda: found_view(self.demo.mark(**given)), request)

    async def ground(self, request: Request) -> Response:
        """Ground phrases of the visitor."""
        given = await read_fields(
            request, chosen=True, picture=TEXT, phrases=TEXTS, each_alone=CHOICE
        )
        return await self._model(lambda: found_view(self.demo.ground(**given)), request)

    async def look(self, request: Request) -> Response:
        """Answer after a closer look."""
        given = await read_fields(request, picture=TEXT, question=TEXT, focus=TEXT)
        return await self._model(lambda: look_view(self.demo.look_again(**given)), request)

    async def result(self, request: Request) -> Response:
        """Send masks as a file."""
        name, _, kind = request.path_params["name"].rpartition(".")
        makers = {
            "png": (self.demo.drawing, "image/png"),
            "json": (self.demo.masks_json, "application/json"),
        }
        if kind not in makers:
            raise Refused(404, "there is no such file: take .png or .json")
        make, media_type = makers[kind]
        data = await self.files.run(lambda: make(name), request)
        disposition = {"Content-Disposition": f'attachment; filename="masks.{kind}"'}
        return Response(data, media_type=media_type, headers=disposition)

    def chosen(self, number: int) -> Path:
        """Return an example's file."""
        if not 0 <= number < len(self.examples):
            raise Refused(404, f"there is no example {number}: there are {len(self.examples)}")
        return self.examples[number]

    def close(self) -> None:
        """End both lines."""
        self.model.close()
        self.files.close()

    async def _model(self, job: Callable[[], Any], request: Request) -> Response:
        return JSONResponse(await self.model.run(job, request))


def build_app(
    demo: Demo,
    *,
    about: str = "",
    examples: Sequence[Path] = (),
    hosts: Sequence[str] = ("*",),
    history: bool = True,
) -> Starlette:
    """Build the web application.

    Args:
        demo: the model and its recent results.
        about: a line about the model.
        examples: picture files to offer.
        hosts: names that requests may call this machine; a page elsewhere that calls it otherwise
            is refused.
        history: whether the page tells the LMM the earlier questions and answers.
    """
    endpoints = Endpoints(demo, about=about, examples=examples, history=history)
    app = Starlette(routes=endpoints.routes(), middleware=[Middleware(HostCheck, hosts=hosts)])
    app.state.endpoints = endpoints
    return app


def explained(run: Callable) -> Callable:
    """Make an endpoint whose faults become messages, and whose answers browsers do not cache."""

    async def endpoint(request: Request) -> Response:
        try:
            response = await run(request)
        except ClientDisconnect:
            response = Response(status_code=LEFT)
        except Exception as fault:
            status, message = explain(fault)
            response = JSONResponse({"error": message}, status_code=status)
        response.headers.update(HEADERS)
        return response

    return endpoint


def explain(fault: Exception) -> tuple[int, str]:
    """Return status and message for a fault; unforeseen ones are printed in the terminal."""
    if isinstance(fault, Refused):
        return fault.status, str(fault)
    if isinstance(fault, ValueError | FileNotFoundError):
        return 400, str(fault)
    if isinstance(fault, torch.OutOfMemoryError):
        return 507, (
            "the accelerator ran out of memory: use a smaller picture or fewer phrases, or start "
            "the demo with --precision bf16"
        )
    traceback.print_exception(fault)
    return 500, "something went wrong here: the terminal that runs the demo says what"


async def _lines(
    first: tuple[str, Any], events: AsyncIterator[tuple[str, Any]]
) -> AsyncIterator[str]:
    """Write the events of `Line.stream` as lines of JSON."""
    try:
        kind, value = first
        while True:
            line = value if kind == "done" else {kind: value}
            yield json.dumps(line) + "\n"
            if kind == "done":
                return
            kind, value = await anext(events)
    except Exception as fault:
        status, message = explain(fault)
        yield json.dumps({"error": message, "status": status}) + "\n"
    finally:
        await events.aclose()  # type: ignore[attr-defined]  # a generator, which has it

"""The page over HTTP: static files, JSON in and out, one worker for the model. Needs the extra
flmm[demo].

    GET  /  /page.css  /page.js              the page
    GET  /api/about                          {"model", "examples"}
    POST /api/picture   bytes of a file      a picture and its name, see `drawing.picture_view`
    POST /api/example   {"example"}          the same for one of the examples
    POST /api/ask       {"picture", "question"}             {"answer", "text"}
    POST /api/mark      {"answer", "phrases": [] finds them}  masks, see `drawing.found_view`
    POST /api/ground    {"picture", "phrases"}              masks
    POST /api/look      {"picture", "question", "focus"}    see `drawing.look_view`
    GET  /api/result/NAME.png  .json         files to keep
    GET  /example/NUMBER                     an example's thumbnail

A mistake of the user is status 400 with {"error": what to do}.
"""

import asyncio
import json
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import torch
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flmm.web.drawing import found_view, look_view, picture_view, thumbnail
from flmm.web.session import Demo
from flmm.web.upload import MAX_BYTES

STATIC = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
MOST_WAITING = 64
MAX_JSON_BYTES = 1 << 20
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is answered with a message. status: of HTTP."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Line:
    """One thing is done at a time, beside the server's own work; what comes meanwhile waits."""

    def __init__(self, name: str):
        self.worker = ThreadPoolExecutor(1, f"flmm-{name}")
        self.waiting = 0

    async def run(self, job: Callable[[], Any]) -> Any:
        """Raises Refused when too many wait, and what the job raises."""
        if self.waiting >= MOST_WAITING:
            raise Refused(503, f"{self.waiting} requests are waiting already: try again in a while")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.worker, job)
        finally:
            self.waiting -= 1

    async def answer(self, job: Callable[[], Any]) -> Response:
        """What the job gives, as JSON."""
        return JSONResponse(await self.run(job))

    def close(self) -> None:
        self.worker.shutdown(cancel_futures=True)


class Endpoints:
    """What each address does.

    Args:
        demo: the model and what was done with it.
        about: what the page says of the model.
        examples: picture files that are offered.
    """

    def __init__(self, demo: Demo, *, about: str, examples: Sequence[Path]):
        self.demo, self.about_model, self.examples = demo, about, list(examples)
        self.model, self.files = Line("model"), Line("files")

    def routes(self) -> list[Route]:
        posts = {"picture": self.picture, "example": self.example, "ask": self.ask}
        posts |= {"mark": self.mark, "ground": self.ground, "look": self.look}
        gets = {
            "/api/about": self.about,
            "/api/result/{name}": self.result,
            "/example/{number:int}": self.thumbnail,
        }
        gets |= {f"/{path}": self.static for path in STATIC}
        return [
            *(
                Route(f"/api/{name}", explained(run), methods=["POST"])
                for name, run in posts.items()
            ),
            *(Route(path, explained(run), methods=["GET"]) for path, run in gets.items()),
        ]

    async def static(self, request: Request) -> Response:
        name, kind = STATIC[request.url.path[1:]]
        return Response(files("flmm.web").joinpath("static", name).read_bytes(), media_type=kind)

    async def about(self, request: Request) -> Response:
        return JSONResponse(
            {"model": self.about_model, "examples": [path.name for path in self.examples]}
        )

    async def picture(self, request: Request) -> Response:
        data = await uploaded(request)
        name = unquote(request.headers.get("x-file-name", "")) or "the file"
        return await self.files.answer(lambda: picture_view(*self.demo.add_picture(data, name)))

    async def example(self, request: Request) -> Response:
        path = self.chosen((await fields(request, example=int))["example"])
        return await self.files.answer(
            lambda: picture_view(*self.demo.add_picture(path.read_bytes(), path.name))
        )

    async def thumbnail(self, request: Request) -> Response:
        path = self.chosen(request.path_params["number"])
        small = await self.files.run(lambda: thumbnail(path.read_bytes(), path.name))
        return Response(small, media_type="image/jpeg")

    async def ask(self, request: Request) -> Response:
        given = await fields(request, picture=str, question=str)
        return await self.model.answer(
            lambda: dict(zip(("answer", "text"), self.demo.ask(**given), strict=True))
        )

    async def mark(self, request: Request) -> Response:
        given = await fields(request, answer=str, phrases=list)
        answer, phrases = given["answer"], given["phrases"] or None
        return await self.model.answer(lambda: found_view(self.demo.mark(answer, phrases)))

    async def ground(self, request: Request) -> Response:
        given = await fields(request, picture=str, phrases=list)
        return await self.model.answer(lambda: found_view(self.demo.ground(**given)))

    async def look(self, request: Request) -> Response:
        given = await fields(request, picture=str, question=str, focus=str)
        return await self.model.answer(lambda: look_view(self.demo.look_again(**given)))

    async def result(self, request: Request) -> Response:
        name, _, kind = request.path_params["name"].rpartition(".")
        if kind not in ("png", "json"):
            raise Refused(404, "there is no such file: take .png or .json")
        drawn, record = await self.files.run(lambda: self.demo.files(name))
        disposition = {"Content-Disposition": f'attachment; filename="masks.{kind}"'}
        if kind == "png":
            return Response(drawn, media_type="image/png", headers=disposition)
        return Response(record, media_type="application/json", headers=disposition)

    def chosen(self, number: int) -> Path:
        if not 0 <= number < len(self.examples):
            raise Refused(404, f"there is no example {number}: there are {len(self.examples)}")
        return self.examples[number]

    def close(self) -> None:
        self.model.close()
        self.files.close()


def build_app(
    demo: Demo, *, about: str = "", examples: Sequence[Path] = (), hosts: Sequence[str] = ("*",)
) -> Starlette:
    """Build the web application.

    Args:
        demo: the model and what was done with it.
        about: a line about the model.
        examples: picture files that are offered.
        hosts: names that requests may call this machine; a page elsewhere that calls it otherwise
            is refused.
    """
    endpoints = Endpoints(demo, about=about, examples=examples)
    app = Starlette(
        routes=endpoints.routes(),
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
        ],
    )
    app.state.endpoints = endpoints
    return app


def explained(run: Callable) -> Callable:
    """Make an endpoint whose faults become messages, and whose answers are not kept by browsers."""

    async def endpoint(request: Request) -> Response:
        try:
            response = await run(request)
        except Refused as refused:
            response = error(refused.status, str(refused))
        except (ValueError, FileNotFoundError) as mistake:
            response = error(400, str(mistake))
        except torch.OutOfMemoryError:
            response = error(
                507,
                "the accelerator ran out of memory: use a smaller picture, fewer phrases, or "
                "--dtype",
            )
        except Exception:
            traceback.print_exc()
            response = error(
                500, "something went wrong here: the terminal that runs the demo says what"
            )
        response.headers.update(HEADERS)
        return response

    return endpoint


def error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)


async def uploaded(request: Request) -> bytes:
    """The bytes of a picture's file, if they are not too many."""
    # Pages elsewhere cannot send these types, nor JSON, without asking the server first, and it
    # does not agree.
    check_type(request, "image/", "application/octet-stream")
    return await body(request, MAX_BYTES)


async def fields(request: Request, **kinds: type) -> dict[str, Any]:
    """The fields of a JSON request: all those named, of these types, and no others. A list holds
    texts."""
    check_type(request, "application/json")
    data = await body(request, MAX_JSON_BYTES)
    try:
        given = json.loads(data)
    except ValueError:
        given = None
    if not isinstance(given, dict) or set(given) != set(kinds):
        raise Refused(400, f"send a JSON object with {', '.join(kinds)}")
    for name, kind in kinds.items():
        if type(given[name]) is not kind or (
            kind is list and any(type(one) is not str for one in given[name])
        ):
            raise Refused(
                400, f"{name} must be {'a list of texts' if kind is list else kind.__name__}"
            )
    return given


def check_type(request: Request, *types: str) -> None:
    if not request.headers.get("content-type", "").startswith(types):
        raise Refused(415, f"send this with a content type of {' or '.join(types)}")


async def body(request: Request, most: int) -> bytes:
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise Refused(413, f"this has more than {most >> 20} MB: make it smaller")
    return bytes(data)

"""`flmm demo` over HTTP, on a free port of this machine, and its command line."""

import base64
import http.client
import io
import json
import re
import socket
import threading
from urllib.parse import quote

import pytest
from flmm.commands.main import COMMANDS, build_parser
from flmm.web import command
from PIL import Image
from tiny_lmms import picture
from tiny_web import QUESTION, file_of, speaking_demo

uvicorn = pytest.importorskip("uvicorn", reason="flmm[demo] is not installed")
pytest.importorskip("starlette", reason="flmm[demo] is not installed")

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class Page:
    """Requests to a running demo."""

    def __init__(self, demo, port: int):
        self.demo, self.port = demo, port

    def request(self, method: str, path: str, body=None, headers=None):
        """(status, headers, bytes)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get(self, path: str):
        return self.request("GET", path)

    def post(self, path: str, **fields):
        """The JSON that answers, which must be a success."""
        status, _, body = self.request("POST", path, json.dumps(fields), JSON)
        assert status == 200, body
        return json.loads(body)

    def upload(self, image, name: str = "a.png") -> dict:
        status, _, body = self.request(
            "POST", "/api/picture", file_of(image), {**BYTES, "X-File-Name": quote(name)}
        )
        assert status == 200, body
        return json.loads(body)

    def refused(self, path: str, body=b"", headers=None) -> tuple[int, str]:
        """Status and message."""
        status, _, body = self.request("POST", path, body, headers)
        assert set(json.loads(body)) == {"error"}
        return status, json.loads(body)["error"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    for number in range(2):
        picture(60, 90, seed=number).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    demo = speaking_demo()
    from flmm.web.server import build_app

    app = build_app(
        demo,
        about="a tiny model",
        examples=command.example_files(folder),
        hosts=command.hosts("127.0.0.1"),
    )
    bound = command.listening("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    bound.listen()
    thread.start()
    yield Page(demo, bound.getsockname()[1])
    server.should_exit = True
    thread.join(20)
    app.state.endpoints.close()
    bound.close()
    assert not thread.is_alive()


def test_asking_grounding_and_files(page):
    image = picture(60, 90, seed=4)
    shown = page.upload(image)
    assert (shown["width"], shown["height"], shown["note"]) == (90, 60, "")
    decoded = Image.open(io.BytesIO(base64.b64decode(shown["source"].partition(",")[2])))
    assert decoded.convert("RGB").tobytes() == image.tobytes()

    said = page.post("/api/ask", picture=shown["picture"], question=QUESTION)
    found = page.post("/api/mark", answer=said["answer"], phrases=[])
    assert "".join(piece["text"] for piece in found["pieces"]) == said["text"]
    assert [one["phrase"] for one in found["phrases"]] == ["left", "dog"]
    words = page.post("/api/mark", answer=said["answer"], phrases=["blue"])
    assert {one["phrase"] for one in words["phrases"]} == {"blue"}  # every mention

    own = page.post("/api/ground", picture=shown["picture"], phrases=["a dog", "the tree", ""])
    for kind, media in (("png", "image/png"), ("json", "application/json")):
        status, headers, body = page.get(f"/api/result/{own['result']}.{kind}")
        assert (status, headers["content-type"].partition(";")[0]) == (200, media)
        assert f"masks.{kind}" in headers["content-disposition"]
    record = json.loads(body)
    assert [one["area"] for one in record["phrases"]] == [one["area"] for one in own["phrases"]]

    look = page.post("/api/look", picture=shown["picture"], question=QUESTION, focus="question")
    assert len(look["box"]) == 4


def test_page_and_examples(page):
    status, headers, body = page.get("/")
    text = body.decode()
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/html")
    assert "default-src 'self'" in headers["content-security-policy"]
    for asset in re.findall(r'(?:src|href)="(page\.\w+)"', text):
        assert page.get(f"/{asset}")[0] == 200
    script = page.get("/page.js")[2].decode()
    ids = set(re.findall(r'\$\("([\w-]+)"\)', script))
    assert len(ids) > 15
    assert ids <= set(re.findall(r'id="([\w-]+)"', text))
    assert "http" not in re.sub(r"//.*", "", script)  # nothing is fetched from elsewhere
    assert json.loads(page.get("/api/about")[2]) == {
        "model": "a tiny model",
        "examples": ["0.png", "1.png"],
    }
    assert page.get("/example/1")[2][:3] == b"\xff\xd8\xff"
    assert page.post("/api/example", example=1)["width"] == 90


def test_mistakes_are_messages(page):
    name = page.upload(picture(60, 90))["picture"]

    def refused(path, **fields):
        return page.refused(path, json.dumps(fields), JSON)

    assert refused("/api/ask", picture=name, question=" ") == (
        400,
        "there is no question: type a question first",
    )
    assert refused("/api/ground", picture=name, phrases=[])[1].startswith(
        "there is no phrase: type one or more"
    )
    assert refused("/api/ground", picture="", phrases=["a"])[1].startswith(
        "there is no picture: choose"
    )
    answer = page.post("/api/ask", picture=name, question=QUESTION)["answer"]
    assert "is not in the answer" in refused("/api/mark", answer=answer, phrases=["a unicorn"])[1]
    assert page.refused(
        "/api/picture", b"no picture", {**BYTES, "X-File-Name": "b%C3%A4r.txt"}
    ) == (
        400,
        "bär.txt cannot be read as a picture: choose a JPEG, PNG or WebP file",
    )
    assert refused("/api/ground", picture=name) == (400, "send a JSON object with picture, phrases")
    assert refused("/api/ground", picture=name, phrases=[3])[1] == "phrases must be a list of texts"
    assert refused("/api/example", example=7)[0] == 404
    assert page.refused("/api/ask", b"{", JSON)[0] == 400
    assert page.get("/api/result/unknown.png")[0] == 400
    assert page.get("/api/result/unknown.txt")[0] == 404


def test_requests_from_elsewhere_are_refused(page):
    assert page.refused("/api/ask", json.dumps({"picture": "", "question": ""}), FORM)[0] == 415
    assert (
        page.refused("/api/picture", file_of(picture(60, 90)), {"Content-Type": "text/plain"})[0]
        == 415
    )
    assert page.request("GET", "/", headers={"Host": "elsewhere.example"})[0] == 400
    assert page.request("GET", "/", headers={"Host": f"localhost:{page.port}"})[0] == 200


def test_too_much_is_refused(page, monkeypatch):
    monkeypatch.setattr("flmm.web.server.MAX_BYTES", 1 << 20)
    assert page.refused("/api/picture", bytes((1 << 20) + 1), BYTES) == (
        413,
        "this has more than 1 MB: make it smaller",
    )
    monkeypatch.setattr("flmm.web.server.MOST_WAITING", 0)
    status, message = page.refused("/api/ask", json.dumps({"picture": "", "question": "a"}), JSON)
    assert (status, message) == (503, "0 requests are waiting already: try again in a while")


def test_faults_are_for_the_terminal(page, monkeypatch, capsys):
    def broken(**_):
        raise KeyError("a secret of the code")

    monkeypatch.setattr(page.demo, "ground", broken)
    status, message = page.refused(
        "/api/ground", json.dumps({"picture": "", "phrases": ["a"]}), JSON
    )
    assert status == 500
    assert "secret" not in message
    assert "a secret of the code" in capsys.readouterr().err


def test_the_model_does_one_thing_at_a_time(page, monkeypatch):
    running, most = [], []

    def slow(picture, question):
        running.append(question)
        most.append(len(running))
        threading.Event().wait(0.02)
        running.remove(question)
        return "name", question

    monkeypatch.setattr(page.demo, "ask", slow)
    threads = [
        threading.Thread(
            target=page.post, args=("/api/ask",), kwargs={"picture": "", "question": str(number)}
        )
        for number in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] * 5


def start(words):
    command.run(build_parser("demo").parse_args(["demo", *words]))


def test_command_line_mistakes_end_with_the_fix(tmp_path, monkeypatch):
    assert COMMANDS["demo"][0] == "web.command"
    with pytest.raises(
        ValueError, match=r"pass --checkpoint .*flmm-quickstart.* or with a released F-LMM .pth"
    ):
        start([])
    run = ["--checkpoint", str(tmp_path / "heads.safetensors")]
    with pytest.raises(
        FileNotFoundError, match=r"there is no folder .*none: pass one with pictures to --examples"
    ):
        start([*run, "--examples", str(tmp_path / "none")])
    with pytest.raises(FileNotFoundError, match="no picture in"):
        command.example_files(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ValueError, match=rf"cannot listen on 127.0.0.1:{port} .*: pass another --port, or 0"
        ):
            start([*run, "--port", str(port)])
    with pytest.raises(ValueError, match="--port 70000 is no port"):
        command.listening("127.0.0.1", 70000)
    with pytest.raises(ValueError, match="pass an address of this machine"):
        command.listening("no such host", 0)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs starlette and uvicorn: pip install 'flmm\[demo\]'"
    ):
        start(run)


def test_hosts_that_browsers_may_name():
    assert command.hosts("127.0.0.1") == ["127.0.0.1", "localhost"]
    assert command.hosts("0.0.0.0") == ["*"]
    assert "workstation" in command.hosts("workstation")

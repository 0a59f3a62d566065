"""`flmm demo` over HTTP, on a free port of this machine, and its command line."""

import asyncio
import base64
import http.client
import io
import json
import re
import socket
import threading
import time
from urllib.parse import quote

import pytest
from flmm.commands.main import COMMANDS, build_parser
from flmm.web import command
from PIL import Image
from tiny_lmms import picture
from tiny_web import QUESTION, file_of, speaking_demo

uvicorn = pytest.importorskip("uvicorn", reason="flmm[demo] is not installed")
pytest.importorskip("starlette", reason="flmm[demo] is not installed")
network = pytest.importorskip("flmm.web.network")

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


class Page:
    """Requests to a running demo."""

    def __init__(self, endpoints, port: int):
        self.endpoints, self.demo, self.port = endpoints, endpoints.demo, port

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

    def ask(self, picture: str, question: str = QUESTION, history=()) -> list[dict]:
        """The lines that answer a question."""
        fields = {"picture": picture, "question": question, "history": list(history)}
        status, headers, body = self.request("POST", "/api/ask", json.dumps(fields), JSON)
        assert status == 200, body
        assert headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in body.decode().splitlines()]

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
        hosts=network.allowed_hosts("127.0.0.1"),
    )
    (bound,) = network.open_sockets("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(app, http=network.TimedProtocol, log_level="error", access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    bound.listen()
    thread.start()
    yield Page(app.state.endpoints, bound.getsockname()[1])
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

    *events, said = page.ask(shown["picture"])
    assert events[0] == {"ahead": 0}
    assert "".join(event["piece"] for event in events[1:]) == said["text"]
    assert len(events) > 5
    found = said["found"]
    assert "".join(piece["text"] for piece in found["pieces"]) == said["text"]
    assert [one["phrase"] for one in found["phrases"]] == ["left", "dog"]
    words = page.post("/api/mark", answer=said["answer"], phrases=["blue"])
    assert {one["phrase"] for one in words["phrases"]} == {"blue"}  # every mention
    last = said["text"].rindex("blue")
    marked = page.post("/api/mark-span", answer=said["answer"], span=[last, last + 4])
    assert [one["phrase"] for one in marked["phrases"]] == ["blue"]
    for key in ("area", "bbox", "score"):
        assert marked["phrases"][0][key] == words["phrases"][-1][key]

    own = page.post(
        "/api/ground", picture=shown["picture"], phrases=["a dog", "the tree", ""], each_alone=False
    )
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
    script = ""
    for asset in ("page.css", "page.js", "masks.js", "server.js"):
        status, _, body = page.get(f"/{asset}")
        assert status == 200
        script += body.decode() if asset.endswith(".js") else ""
    ids = set(re.findall(r'\$\("([\w-]+)"\)', script))
    assert len(ids) > 15
    assert ids <= set(re.findall(r'id="([\w-]+)"', text))
    assert "http" not in re.sub(r"//.*", "", script)  # nothing is fetched from elsewhere
    assert json.loads(page.get("/api/about")[2]) == {
        "model": "a tiny model",
        "examples": ["0.png", "1.png"],
        "history": True,
        "looks": True,
        "grounders": ["heads"],
        "outlines": ["refined"],
    }
    assert page.get("/example/1")[2][:3] == b"\xff\xd8\xff"
    assert page.post("/api/example", example=1)["width"] == 90


def test_mistakes_are_messages(page):
    name = page.upload(picture(60, 90))["picture"]

    def refused(path, **fields):
        return page.refused(path, json.dumps(fields), JSON)

    assert refused("/api/ask", picture=name, question=" ", history=[]) == (
        400,
        "there is no question: type a question first",
    )
    assert refused("/api/ground", picture=name, phrases=[], each_alone=False)[1].startswith(
        "there is no phrase: type one or more"
    )
    assert refused("/api/ground", picture="", phrases=["a"], each_alone=False)[1].startswith(
        "there is no picture: choose"
    )
    answer = page.ask(name)[-1]["answer"]
    assert "is not in the answer" in refused("/api/mark", answer=answer, phrases=["a unicorn"])[1]
    assert page.refused(
        "/api/picture", b"no picture", {**BYTES, "X-File-Name": "b%C3%A4r.txt"}
    ) == (
        400,
        "bär.txt cannot be read as a picture: choose a JPEG, PNG or WebP file",
    )
    assert refused("/api/ground", picture=name) == (
        400,
        "send a JSON object with picture, phrases, each_alone",
    )
    assert refused("/api/ground", picture=name, phrases=[3], each_alone=False)[1] == (
        "phrases must be a list of texts"
    )
    assert refused("/api/ground", picture=name, phrases=["a"], each_alone=1)[1] == (
        "each_alone must be true or false"
    )
    assert refused("/api/example", example=7)[0] == 404
    for wrong in ([["a"]], [["a", 3]], ["a"], "a"):
        said = refused("/api/ask", picture=name, question="a", history=wrong)[1]
        assert said == "history must be a list of pairs of texts"
    for body in (b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff"):
        assert page.refused("/api/ask", body, JSON)[0] == 400
    half = "\ud800 what"
    assert (
        "letters that are no text"
        in refused("/api/ground", picture=name, phrases=[half], each_alone=True)[1]
    )
    assert "span must be a list of two" in refused("/api/mark-span", answer="a", span=[1])[1]
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
    name = page.upload(picture(60, 90))["picture"]
    monkeypatch.setattr("flmm.web.requests.MAX_BYTES", 1 << 20)
    assert page.refused("/api/picture", bytes((1 << 20) + 1), BYTES) == (
        413,
        "this has more than 1 MB: make it smaller",
    )
    monkeypatch.setattr("flmm.web.line.MOST_WAITING", 0)
    fields = {"picture": name, "question": "a", "history": []}
    status, message = page.refused("/api/ask", json.dumps(fields), JSON)
    assert (status, message) == (503, "0 requests are waiting already: try again in a while")


def test_faults_are_for_the_terminal(page, monkeypatch, capsys):
    def broken(**_):
        raise KeyError("a secret of the code")

    monkeypatch.setattr(page.demo, "ground", broken)
    status, message = page.refused(
        "/api/ground", json.dumps({"picture": "", "phrases": ["a"], "each_alone": True}), JSON
    )
    assert status == 500
    assert "secret" not in message
    assert "a secret of the code" in capsys.readouterr().err


def test_a_mistake_while_answering_ends_the_lines(page):
    name = page.upload(picture(60, 90))["picture"]
    *_, last = page.ask(name, "a big dog " * 3000)
    assert last["status"] == 400
    assert "do not fit the context" in last["error"]


def test_the_model_is_told_the_earlier_turns(page, monkeypatch):
    heard = []
    answer = page.demo.answer

    def listen(picture, question, *, history, on_text):
        heard.append(history)
        return answer(picture, question, history=history, on_text=on_text)

    monkeypatch.setattr(page.demo, "answer", listen)
    name = page.upload(picture(60, 90))["picture"]
    last = page.ask(name, history=[["the dog", "a big dog"]])[-1]
    assert (heard, last["remembered"]) == ([[("the dog", "a big dog")]], 1)


def test_the_model_does_one_thing_at_a_time_and_says_how_many_wait(page, monkeypatch):
    running, most = [], []
    go = threading.Event()

    def slow(picture, phrases, each_alone):
        running.append(phrases)
        most.append(len(running))
        go.wait(20)
        running.remove(phrases)
        raise ValueError("done")

    monkeypatch.setattr(page.demo, "ground", slow)
    name = page.upload(picture(60, 90))["picture"]
    fields = json.dumps({"picture": "", "phrases": ["a"], "each_alone": True})
    threads = [
        threading.Thread(target=page.refused, args=("/api/ground", fields, JSON)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(page.endpoints.model._jobs) == 3)
    threading.Timer(0.7, go.set).start()
    events = page.ask(name)
    assert events[0] == {"ahead": 3}
    assert {"ahead": 0} in events
    for thread in threads:
        thread.join(30)
    assert most == [1] * 3


def until(condition, seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def raw(page, head: str, body: bytes = b"") -> socket.socket:
    """A connection that has sent the beginning of a request."""
    connection = socket.create_connection(("127.0.0.1", page.port), timeout=20)
    connection.sendall(head.replace("\n", "\r\n").encode() + body)
    return connection


def post_head(page, path: str, kind: str, length: int) -> str:
    host = f"Host: localhost:{page.port}"
    return f"POST {path} HTTP/1.1\n{host}\nContent-Type: {kind}\nContent-Length: {length}\n\n"


def test_visitors_who_leave_take_their_jobs_along(page, monkeypatch, capsys):
    go, done = threading.Event(), []

    def slow(picture, phrases, each_alone):
        go.wait(20)
        done.append(phrases[0])
        raise ValueError("done")

    monkeypatch.setattr(page.demo, "ground", slow)
    jobs = page.endpoints.model._jobs
    waiting = []
    for number in range(3):
        fields = json.dumps({"picture": "", "phrases": [str(number)], "each_alone": False}).encode()
        head = post_head(page, "/api/ground", "application/json", len(fields))
        waiting.append(raw(page, head, fields))
        until(lambda wanted=number + 1: len(jobs) == wanted)
    waiting[1].close()
    until(lambda: len(jobs) == 2)
    go.set()
    for place in (0, 2):
        assert b" 400 " in waiting[place].recv(1000)
        waiting[place].close()
    assert done == ["0", "2"]

    cut = raw(page, post_head(page, "/api/picture", "image/png", 1000), b"abc")  # while sending
    until(lambda: page.endpoints.uploads._running == 1)
    cut.close()
    until(lambda: page.endpoints.uploads._running == 0)
    assert page.get("/api/about")[0] == 200
    assert capsys.readouterr().err == ""


def test_an_answer_ends_when_its_reader_leaves(page, monkeypatch):
    ended = threading.Event()

    def endless(picture, question, *, history, on_text):
        try:
            while True:
                on_text("word ")
                time.sleep(0.005)
        finally:
            ended.set()

    monkeypatch.setattr(page.demo, "answer", endless)
    name = page.upload(picture(60, 90))["picture"]
    fields = json.dumps({"picture": name, "question": "a", "history": []}).encode()
    reader = raw(page, post_head(page, "/api/ask", "application/json", len(fields)), fields)
    reader.recv(200)
    reader.close()
    assert ended.wait(20)


def test_what_arrives_too_slowly_is_ended(page, monkeypatch):
    monkeypatch.setattr("flmm.web.requests.BODY_S", 0.2)
    with raw(page, post_head(page, "/api/picture", "image/png", 1_000_000), b"abc") as slow:
        assert b" 408 " in slow.recv(1000)
    monkeypatch.setattr("flmm.web.network.HEAD_S", 0.2)
    for begun in ("", "GET / HTT"):
        with raw(page, begun) as slow:
            assert slow.recv(1000) == b""  # closed
    monkeypatch.setattr("flmm.web.requests.MOST_UPLOADS", 0)
    status, message = page.refused("/api/picture", file_of(picture(60, 90)), BYTES)
    assert (status, message) == (503, "0 pictures are being sent already: try again")


def start(words):
    command.run(build_parser("demo").parse_args(["demo", *words]))


def test_command_line_mistakes_end_with_the_fix(tmp_path, monkeypatch):
    assert COMMANDS["demo"][0] == "flmm.web.command"
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
        network.open_sockets("127.0.0.1", 70000)
    with pytest.raises(ValueError, match="pass an address of this machine"):
        network.open_sockets("no such host", 0)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"needs starlette and uvicorn: pip install starlette uvicorn"
    ):
        start(run)


def test_hosts_that_browsers_may_name():
    assert network.allowed_hosts("127.0.0.1") == ["127.0.0.1", "::1", "localhost"]
    assert network.allowed_hosts("0.0.0.0") == network.allowed_hosts("::") == ["*"]
    assert "workstation" in network.allowed_hosts("workstation")


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        ("localhost:7860", True),
        ("LOCALHOST", True),
        ("[::1]:7860", True),
        ("[::1]", True),
        ("127.0.0.1:1", True),
        ("elsewhere.example", False),
        ("[::2]:7860", False),
        ("[::1", False),
        ("localhost.elsewhere.example", False),
        ("", False),
    ],
)
def test_names_in_the_host_header(header, is_allowed):
    passed, sent = [], []

    async def app(scope, receive, send):
        passed.append(scope)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", header.encode())]}
    check = network.HostCheck(app, network.allowed_hosts("::1"))
    asyncio.run(check(scope, None, send))
    assert bool(passed) is is_allowed
    assert [one["status"] for one in sent[:1]] == ([] if is_allowed else [400])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_addresses_to_open():
    (bound,) = network.open_sockets("127.0.0.1", 0)
    with bound:
        assert network.addresses([bound], "127.0.0.1") == [
            f"http://127.0.0.1:{bound.getsockname()[1]}"
        ]
    if not has_ipv6():
        return
    (bound,) = network.open_sockets("::1", 0)
    with bound:
        assert network.addresses([bound], "::1") == [f"http://[::1]:{bound.getsockname()[1]}"]


def test_localhost_listens_on_every_address_it_has(monkeypatch):
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    opened = network.open_sockets("localhost", 0)
    ports = {one.getsockname()[1] for one in opened}
    names = {one.getsockname()[0] for one in opened}
    for one in opened:
        one.close()
    assert len(ports) == 1
    assert names == ({"::1", "127.0.0.1"} if has_ipv6() else {"127.0.0.1"})

"""Language models that compare answers with the true ones.

The published scores of the Visual CoT benchmark (arXiv 2403.16999) come from such a judge. It is
asked for a line "score: S" with S between 0 and 1; a reply without exactly one score counts 0.
"""

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from flmm.adapters.frozen import FrozenLMM
from flmm.adapters.tokenizer import plain_decoder, prompt_ids, tokenizer_of

INSTRUCTION = (
    "You grade answers to questions about pictures. You are given a question, its true answer and "
    "an answer to grade. Decide how far the graded answer means the same as the true one. Reply "
    "with one line, `score: S`, where S is a number from 0 (wrong) to 1 (right)."
)
# The model that the published scores of the benchmark were made with.
PUBLISHED_JUDGE = "gpt-3.5-turbo-1106"
KEY_VARIABLE = "OPENAI_API_KEY"
REPLY_TOKENS = 100
TRIES = 5
RETRY_S = 5.0
TIMEOUT_S = 60.0
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)


class Judge(Protocol):
    """A language model that grades answers."""

    @property
    def name(self) -> str:
        """Name of everything that the verdicts depend on; verdicts of another name are made
        anew."""
        ...

    @property
    def parallel(self) -> int:
        """Number of requests that it takes at the same time."""
        ...

    def __call__(self, question: str, truth: str, answer: str) -> str:
        """Return the reply, which `read_score` reads."""
        ...


def read_score(reply: str) -> float | None:
    """Read the score of a reply, clipped to [0, 1]; None unless there is exactly one."""
    found = re.findall(r"score[\s*`]*:[\s*`]*(\d+(?:\.\d+)?|\.\d+)", reply.lower())
    return min(float(found[0]), 1.0) if len(found) == 1 else None


def grading_request(question: str, truth: str, answer: str) -> str:
    """Write the prompt of a judge about one answer."""
    return f"Question: {question}\nTrue answer: {truth}\nAnswer to grade: {answer.strip()}"


@dataclass(frozen=True)
class EndpointJudge:
    """A language model behind an address that speaks OpenAI's chat protocol.

    url: of the server ("http://host:8000"), its version ("http://host:8000/v1") or its
    chat/completions. model: the name that the server knows it by. key: sent as bearer token;
    default: the environment variable OPENAI_API_KEY, if it is set. retry_s: pause before another
    try.

    Raises:
        ValueError: the address is not http or https.
    """

    url: str
    model: str = PUBLISHED_JUDGE
    key: str | None = field(default_factory=lambda: os.environ.get(KEY_VARIABLE), repr=False)
    parallel: int = 8
    retry_s: float = RETRY_S

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"--judge {self.url} is no address: pass one such as http://localhost:8000/v1"
            )

    @property
    def name(self) -> str:
        return f"{self.model} at {self.endpoint}"

    @property
    def endpoint(self) -> str:
        """The whole address of the requests."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/")
        if not path.endswith("/chat/completions"):
            path = f"{path or '/v1'}/chat/completions"
        return urlunsplit(parts._replace(path=path))

    def __call__(self, question: str, truth: str, answer: str) -> str:
        """Ask the server, and ask again while it is busy or out of reach.

        Raises:
            ConnectionError: it cannot be reached, or stays busy.
            ValueError: it refuses the request, or its reply is of another protocol.
        """
        content = grading_request(question, truth, answer)
        messages = [
            {"role": "system", "content": INSTRUCTION},
            {"role": "user", "content": content},
        ]
        body = {
            "model": self.model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": REPLY_TOKENS,
        }
        for left in range(TRIES - 1, -1, -1):
            try:
                return _content(self._post(body), self.endpoint)
            except HTTPError as fault:
                if fault.code not in _BUSY:
                    raise ValueError(self._refusal(fault)) from None
                reason = f"{fault.code} {fault.reason}"
            except (URLError, TimeoutError, ConnectionError, HTTPException) as fault:
                reason = str(getattr(fault, "reason", "") or fault) or type(fault).__name__
            if left:
                time.sleep(self.retry_s)
        raise ConnectionError(f"the judge {self.endpoint} does not answer ({reason})")

    def _post(self, body: Mapping[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = Request(self.endpoint, json.dumps(body).encode(), headers, method="POST")
        with urlopen(request, timeout=TIMEOUT_S) as response:
            reply: bytes = response.read()
        return reply

    def _refusal(self, fault: HTTPError) -> str:
        said = " ".join(fault.read(400).decode(errors="replace").split())
        return (
            f"the judge {self.endpoint} refuses with {fault.code} {fault.reason} ({said[:200]}): "
            f"check --judge, --judge-model {self.model} and the variable {KEY_VARIABLE}"
        )


def _content(reply: bytes, endpoint: str) -> str:
    """Return the text in a reply of the chat protocol."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        content = None
    if not isinstance(content, str):
        raise ValueError(
            f"the judge {endpoint} answers in another protocol than OpenAI's chat/completions: "
            "pass the address of a server that has it"
        )
    return content


class LmmJudge:
    """An LMM on this machine, asked without a picture.

    Args:
        lmm: with a tokenizer.
        name: its name on the command line.
    """

    parallel = 1

    def __init__(self, lmm: FrozenLMM, name: str):
        self.lmm, self.name = lmm, name

    def __call__(self, question: str, truth: str, answer: str) -> str:
        """Generate the reply greedily."""
        style, decode = self.lmm.family.style, plain_decoder(tokenizer_of(self.lmm))
        # A text that spells the image token would stand for a picture.
        request = f"{INSTRUCTION}\n\n{grading_request(question, truth, answer)}"
        request = request.replace(style.image_token, " ")
        ids = prompt_ids(self.lmm, style.template.replace("{input}", request))
        return decode(self.lmm.complete(ids, max_new_tokens=REPLY_TOKENS).tolist())

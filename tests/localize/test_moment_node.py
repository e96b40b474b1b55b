"""The moment localizer on a stream: with a random model, where only sameness counts, and with one that is right."""

import pickle

import numpy as np
import pytest
import torch

from onlooker.operators.contract import Context, Control, Inputs
from onlooker.operators.errors import OnlookerError
from onlooker.operators.localize.moment_node import MomentLocalizer, MomentLocalizerConfig
from onlooker.operators.localize.offline import find_moments
from onlooker.operators.localize.unloc.config import FusionConfig, HeadConfig
from onlooker.operators.localize.unloc.decoding import decode_moments, probabilities, suppress_moments
from onlooker.operators.localize.unloc.load import load_localizer, localizer_names
from onlooker.operators.localize.unloc.model import Unloc
from onlooker.operators.localize.unloc.nms import NmsOptions
from onlooker.operators.localize.unloc.sampling import Sampling, anchors
from onlooker.operators.tower import load_tower
from tests.localize.moments import (
    FPS,
    FRAMES,
    LEVELS,
    WIDTH,
    config,
    embeddings,
    ends,
    localizer,
    noise,
    pictures,
    random_unloc,
    run,
    save_moments,
)

QUERIES = ("a dog runs past", "a red car stops")
PATTERN = (
    ["nothing at all here"] * 4
    + ["a dog runs past"] * 6
    + ["nothing at all here"] * 9
    + ["a red car stops"] * 40
    + ["a dog runs past"] * 3
    + ["a house with trees"] * 6
    + ["a dog runs past"] * 8
    + ["nothing at all here"] * 13
)
TRUTH = [
    ("a dog runs past", 2.0, 5.0),
    ("a red car stops", 9.5, 29.5),
    ("a dog runs past", 29.5, 31.0),
    ("a dog runs past", 34.0, 38.0),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_moments(tmp_path_factory.mktemp("moments"))


def shown(folder, pattern=PATTERN):
    """One packet per name, half a second apart."""
    frames = pictures(folder)
    return embeddings([frames[name] for name in pattern])


def as_lines(events):
    return [(t, event.to_json()) for t, event in events]


def as_bytes(scores):
    return [(s.t, s.names, s.values.tobytes()) for s in scores]


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("frames", [7, 16, 75])
def test_chunks_do_not_matter(folder, frames, chunk):
    operator, packets = localizer(folder), embeddings(noise(frames))
    events, scores = run(operator, packets)
    in_parts = run(operator, packets, chunk)
    assert as_lines(events) == as_lines(in_parts[0]) and as_bytes(scores) == as_bytes(in_parts[1])
    assert len(scores) == frames and len(events) >= 2


def offline(folder, frames, query, score_threshold):
    """A clip of at most T frames as UnLoc takes it: one pass of the model, decoding, suppression."""
    model = load_localizer(folder).model
    video = torch.zeros(16, FRAMES, WIDTH)
    video[:, : len(frames)] = torch.from_numpy(np.stack(frames))
    tower = load_tower(f"local-dir:{folder / 'tower'}", parts="text")
    text = tower.encode_texts([query]).expand(16, -1)
    steps = anchors(FRAMES, LEVELS)
    mask = steps.times < len(frames)
    with torch.inference_mode():
        scored = model.score(video, text, torch.from_numpy(mask).expand(16, -1))
    sampling = Sampling("random", FRAMES, len(frames), offset=0)
    scores, boxes = probabilities(scored.logits[:1].numpy()), scored.displacements[:1].numpy()
    found = decode_moments(scores, boxes, mask, steps, sampling, seconds_per_frame=1 / FPS)
    (left,) = suppress_moments(found, NmsOptions(score_threshold=score_threshold))
    return [(float(start), float(end), float(score)) for (start, end), score in zip(*left[::-1], strict=True)]


@pytest.mark.parametrize("frames", [3, 11, 16])
def test_a_stream_no_longer_than_a_window_is_localized_as_offline(folder, frames):
    """Whatever the hop: what is left at its end is what the model says about it as a whole, to the last bit."""
    features = noise(frames, seed=3)
    reference = offline(folder, features, "a dog runs past", 0.001)
    for hop in (4, 8, 16):
        operator = localizer(folder, ["a dog runs past"], hop=hop)
        whole = find_moments(
            operator._model, operator._plan, np.stack(features), [i / FPS for i in range(frames)], ["a dog runs past"]
        )
        assert [(s.start, s.end, s.score) for s in whole[0]] == reference
        state = operator.initial_state("s")
        state, _ = operator.process(state, Inputs({"embedding": embeddings(features)}, 9.0, 9.0))
        state, _ = operator.flush(state, frames / FPS)
        online = offline_of(operator, state, frames)
        assert online == [(s, e, p) for s, e, p in reference if p > operator._nms.score_threshold]
    assert len(reference) > 5


def offline_of(operator, state, frames):
    from onlooker.operators.localize.moment_candidates import found_segments

    window = state.ring.close(operator._plan)
    found = found_segments(state.queries[0].pool, window, operator._plan, operator._nms)
    return [(s.start, s.end, s.score) for s in found]


def test_with_one_window_the_events_are_the_offline_segments(folder):
    """Those of at least `on` that tell of a moment of their own, best first."""
    features = noise(16, seed=5)
    events, _ = run(localizer(folder, ["a dog runs past"], hop=16, settle=2.0), embeddings(features))
    chosen = []
    for start, end, score in offline(folder, features, "a dog runs past", 0.4):
        shared = [min(end, e) - max(start, s) for s, e, _ in chosen]
        alone = all(x < 0.5 * min(end - start, e - s) for x, (s, e, _) in zip(shared, chosen, strict=True))
        if score >= 0.5 and end > start and alone:
            chosen.append((start, end, score))
    told = [(e.t_start, e.t_end, e.data.score) for _, e in events if e.phase == "end"]
    assert sorted(told) == sorted((round(s, 6), round(e, 6), round(p, 4)) for s, e, p in chosen)
    assert told


def test_company_does_not_matter(folder):
    """Other queries, another order of them, other streams in the same call: not one bit changes."""
    packets = embeddings(noise(50))
    alone = run(localizer(folder, ["a dog runs past"]), packets)
    crowd = localizer(folder, [f"{i} things" for i in range(20)] + ["a dog runs past"])
    together = run(crowd, packets)
    assert [s.values[:1].tobytes() for s in alone[1]] == [s.values[-1:].tobytes() for s in together[1]]
    assert ends(alone[0]) == [one for one in ends(together[0]) if one[0] == "a dog runs past"]

    operator = localizer(folder)
    others = embeddings(noise(33, seed=9), stream="other")
    states, told = [operator.initial_state("s"), operator.initial_state("other")], []
    for start in range(0, 50, 10):
        given = [Inputs({"embedding": p[start : start + 10]}, 0.0, 0.0) for p in (packets, others)]
        results = operator.process_batch(states, given)
        states = [state for state, _ in results]
        told += results[0][1].packets.get("scores", [])
    assert as_bytes(told) == as_bytes(run(operator, packets)[1][: len(told)])


def test_moments_are_found_as_they_are_and_in_time(folder):
    events, _ = run(localizer(folder, QUERIES, truthful=True), shown(folder))
    assert sorted(ends(events), key=lambda one: one[1:]) == TRUTH
    for t, event in events:
        if event.phase == "end":
            assert t - event.t_end <= 2.0 + 4 / FPS, "settle + hop"
        if event.phase == "new":
            assert t - event.t_start <= (4 + 2) / FPS, "a hop after it can be trusted"


def test_numbers_and_revisions_tell_one_story(folder):
    events, _ = run(localizer(folder, QUERIES, truthful=True), shown(folder))
    stories = {}
    for _, event in events:
        stories.setdefault(event.data.event_id, []).append((event.phase, event.data.rev, event.data.query))
    assert [name.rsplit("/", 1)[1] for name in stories] == ["0", "1", "2", "3"]
    assert list(stories.values())[1] == [
        ("new", 0, "a red car stops"),
        ("update", 1, "a red car stops"),
        ("end", 2, "a red car stops"),
    ]


def test_real_times_are_told_where_frames_do_not_stand_at_the_rate(folder):
    packets = shown(folder)
    late = [type(p)(p.stream, p.epoch, round(p.t + 0.04 * (i % 2), 2), p.features) for i, p in enumerate(packets)]
    events, _ = run(localizer(folder, QUERIES, truthful=True), late, t_end=60.0)
    assert ("a red car stops", 9.54, 29.54) in ends(events)


def test_scores_cover_every_frame_with_a_bounded_lag(folder):
    operator, packets = localizer(folder, QUERIES, truthful=True), shown(folder)
    _, scores = run(operator, packets)
    assert [s.t for s in scores] == [p.t for p in packets]
    fits = np.array([[name == query for query in QUERIES] for name in PATTERN])
    assert ((np.stack([s.values for s in scores]) > 0.5) == fits).mean() > 0.85
    state, lag = operator.initial_state("s"), []
    for packet in packets:
        state, out = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t))
        lag += [packet.t - s.t for s in out.packets.get("scores", [])]
    assert max(lag) <= 2.0 + 4 / FPS


def test_a_new_query_finds_what_is_going_on_and_what_just_ended(folder):
    operator = localizer(folder, (), truthful=True)
    state, told = operator.initial_state("s"), []
    for i, packet in enumerate(shown(folder)):
        add = (Control("query.add", {"text": "a dog runs past"}),) if i in (12, 30) else ()
        add += (Control("query.add", {"text": "a red car stops"}),) if i == 41 else ()
        state, out = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t, add))
        told += [(p.t, e) for p in out.packets.get("events", []) for e in p.events]
    assert ends(told)[0] == ("a dog runs past", 2.0, 5.0), "it ended before anybody asked, but not long before"
    (red,) = [(t, e) for t, e in told if e.data.query == "a red car stops" and e.phase == "new"]
    assert red == (21.5, red[1]) and 13.5 <= red[1].t_start <= 14.5, "what the window still shows of it"
    assert len([1 for one in ends(told) if one[0] == "a dog runs past"]) == 3, "the second wish for it changes nothing"


def test_what_is_open_ends_when_its_query_is_removed(folder):
    operator, packets = localizer(folder, QUERIES, truthful=True), shown(folder)
    state, told = operator.initial_state("s"), []
    for i, packet in enumerate(packets[:40]):
        control = (Control("query.remove", {"text": "a red car stops"}),) if i == 30 else ()
        state, out = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t, control))
        told += [(p.t, e) for p in out.packets.get("events", []) for e in p.events if e.data.query == "a red car stops"]
        if i >= 30:
            assert [q.text for q in state.queries] == ["a dog runs past"]
    assert [(t, e.phase) for t, e in told] == [(11.5, "new"), (15.0, "end")]
    assert told[-1][1].t_end <= 15.0 and told[-1][1].data.event_id == told[0][1].data.event_id


def test_after_a_long_gap_everything_begins_anew(folder):
    frames = pictures(folder)
    names = ["a dog runs past"] * 10 + ["a dog runs past"] * 10
    times = [i / FPS for i in range(10)] + [100 + i / FPS for i in range(10)]
    events, scores = run(
        localizer(folder, ["a dog runs past"], truthful=True),
        embeddings([frames[n] for n in names], times),
        t_end=105.0,
    )
    assert ends(events) == [("a dog runs past", 0.0, 5.0), ("a dog runs past", 100.0, 105.0)]
    assert [s.t for s in scores] == times


def test_a_short_gap_is_what_was_seen_before_it(folder):
    packets = [p for p in shown(folder) if not 12.0 < p.t < 15.0]
    assert ("a red car stops", 9.5, 29.5) in ends(run(localizer(folder, QUERIES, truthful=True), packets)[0])


def test_the_last_frame_lasts_until_the_end_of_the_stream(folder):
    frames = pictures(folder)
    packets = embeddings([frames["a dog runs past"]] * 4, [0.0, 3.0, 6.0, 9.0])
    events, scores = run(localizer(folder, QUERIES, truthful=True), packets, t_end=12.0)
    assert ends(events) == [("a dog runs past", 0.0, 12.0)]
    assert len(scores) == 24, "one for each slot"


def test_state_is_data_of_bounded_size(folder):
    """It can be moved to another process at any time, and does not grow with the stream."""
    operator, packets = localizer(folder), embeddings(noise(120))
    state, sizes, events = operator.initial_state("s"), [], []
    for packet in packets:
        state, out = operator.process(state, Inputs({"embedding": [packet]}, packet.t, packet.t))
        events += [(p.t, e) for p in out.packets.get("events", []) for e in p.events]
        moved = pickle.dumps(state)
        state = pickle.loads(moved)
        sizes.append(len(moved))
    assert max(sizes[60:]) < 1.1 * max(sizes[:60])
    whole = run(operator, packets)[0]
    assert as_lines(events) == as_lines(whole[: len(events)])


def test_frames_are_projected_once_however_many_queries_there_are(folder, monkeypatch):
    operator, calls = localizer(folder, [f"{i} things" for i in range(30)]), []
    project = operator._model.project_frame
    monkeypatch.setattr(operator._model, "project_frame", lambda f: calls.append(1) or project(f))
    run(operator, embeddings(noise(40)))
    assert len(calls) == 40


def test_scores_that_nobody_reads_are_not_made(folder):
    operator = MomentLocalizer(MomentLocalizerConfig(model=str(folder), queries=["a dog runs past"]))
    operator.open(Context(outputs=frozenset({"events"})))
    events, scores = run(operator, embeddings(noise(40)))
    assert events and not scores


def test_without_queries_there_is_nothing(folder):
    assert run(localizer(folder, ()), embeddings(noise(40))) == ([], [])
    operator = localizer(folder)
    assert operator.flush(operator.initial_state("s"), 0.0)[1].packets == {}


def test_untrained_or_mixed_up_models_do_not_find_the_truth(folder):
    """The twins: what is told comes from the model, not from the rules around it."""
    untrained, _ = run(localizer(folder, QUERIES), shown(folder))
    mixed_up, _ = run(localizer(folder, QUERIES, truthful=True), shown(folder, list(reversed(PATTERN))))
    for events in (untrained, mixed_up):
        assert not set(ends(events)) & set(TRUTH)


def test_classes_come_from_a_list_and_are_told_by_name(folder, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("# of the yard\ndog, hound\ncar\n")
    operator = MomentLocalizer(MomentLocalizerConfig(model=str(folder), classes=names, templates=["a {}", "one {}"]))
    operator.open(Context())
    vectors = {query.text: query.vector for query in operator.initial_state("s").queries}
    tower = load_tower(f"local-dir:{folder / 'tower'}", parts="text")
    dog = np.asarray(tower.encode_texts(["a dog", "one dog", "a hound", "one hound"])).mean(0)
    assert list(vectors) == ["dog", "car"]
    np.testing.assert_allclose(vectors["dog"], dog, atol=1e-6)
    events, scores = run(operator, embeddings(noise(40)))
    assert scores[0].names == ("dog", "car") and {e.data.query for _, e in events} <= {"dog", "car"}
    with pytest.raises(ValueError, match="both a query and a class"):
        MomentLocalizerConfig(classes=["dog"], queries=["dog"])


def test_a_linear_head_shares_frames_out_among_classes(folder, tmp_path):
    sizes = {"frames": FRAMES, "video_width": WIDTH, "text_width": WIDTH, "project_video": False}
    fusion = FusionConfig(width=WIDTH, heads=4, mlp_width=48, layers=2, levels=1, kind="transformer")
    unloc = type(config())(task="action_segmentation", fusion=fusion, head=HeadConfig(kind="linear"), **sizes)
    model = random_unloc(unloc=unloc)
    save_moments(tmp_path, model)
    operator, packets = localizer(tmp_path, QUERIES), embeddings(noise(60))
    events, scores = run(operator, packets)
    assert as_lines(events) == as_lines(run(operator, packets, 3)[0]) and len(scores) == 60
    spans = sorted((e.t_start, e.t_end) for _, e in events if e.phase == "end")
    assert len(spans) > 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"video_width": 24, "text_width": 24, "project_video": True}, "reads features of width 24"),
        ({"all_text_tokens": True}, "each query stands alone"),
    ],
)
def test_localizers_that_cannot_watch_are_refused(tmp_path, changes, says):
    fusion = FusionConfig(
        width=WIDTH, heads=4, mlp_width=48, layers=1, levels=3, all_text_tokens=changes.pop("all_text_tokens", False)
    )
    sizes = {"frames": FRAMES, "video_width": WIDTH, "text_width": WIDTH, "fusion": fusion, **changes}
    save_moments(tmp_path, Unloc(type(config())(**sizes)))
    with pytest.raises(OnlookerError, match=says):
        localizer(tmp_path)


def test_wrong_settings_are_refused(folder, tmp_path):
    with pytest.raises(OnlookerError, match="hop 3"):
        localizer(folder, hop=3)
    with pytest.raises(OnlookerError, match="nowhere"):
        localizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="off should not be above on"):
        MomentLocalizerConfig(on=0.3, off=0.5)
    with pytest.raises(ValueError, match="empty"):
        MomentLocalizerConfig(queries=[" "])
    save_moments(tmp_path, fps="two")
    with pytest.raises(OnlookerError, match="fps: 'two'"):
        localizer(tmp_path)
    with pytest.raises(OnlookerError, match="--sampling fixed"):
        localizer(save_moments(tmp_path / "whole", sampling="linspace"))


def test_frames_of_another_tower_are_refused(folder):
    with pytest.raises(OnlookerError, match="not the one it was trained with"):
        run(localizer(folder), embeddings([np.zeros(12, np.float32)]))


@pytest.mark.parametrize("name", localizer_names() or ["none"])
def test_localizers_of_the_package_watch_and_tell_ends_within_ten_seconds(name):
    operator = localizer(name, ["a dog runs past"])
    assert operator._rules.settle + operator._rules.reach <= 10.0
    features = np.random.default_rng(0).normal(size=(20, operator._model.model.config.video_width)).astype(np.float32)
    _, scores = run(operator, embeddings(list(features)))
    assert [s.t for s in scores] == [i / FPS for i in range(20)]

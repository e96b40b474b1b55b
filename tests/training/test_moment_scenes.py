"""Videos with queries: what is asked is shown when its moments say, and nowhere else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onlooker.training.moment_scenes import (
    MomentLibrary,
    MomentRecipe,
    caption_similarity,
    read_moment_video,
    shown_classes,
    write_moment_video,
)
from onlooker.training.scenes import VideoOptions

SMALL = VideoOptions(width=64, height=48, fps=4, seconds=(1.0, 2.0), fade=0.4)
SUBJECTS = ("dog", "horse", "boat", "child", "surfer", "climber", "band", "market")
PLACES = ("beach", "meadow", "street", "forest", "harbour", "mountain")
RECIPE = MomentRecipe(
    once=2, again=2, distractors=2, of_class=1, others=1, absent=2, hard_absent=2, alike=(0.2, 0.8), common=0.9
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of subjects in places: two of one subject, or of one place, have words in common."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "flickr8k"
    (folder / "images").mkdir(parents=True)
    files = {f"{s}_{p}.jpg": f"the {s} near the {p}" for s in SUBJECTS for p in PLACES}
    for split in ("train", "dev", "test"):
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(files))
    with gzip.open(folder / "Flickr8k.token.txt.gz", "wt") as captions:
        captions.writelines(f"{file}#{k}\t{text}\n" for file, text in files.items() for k in range(5))
    rng = np.random.default_rng(0)
    for file in files:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "images" / file)
    boxes = {file: [[file.split("_")[0], 0.9, 10, 10, 200, 200]] for file in files if file[0] in "dhb"}
    (folder / "pseudo_boxes.json").write_text(json.dumps({"boxes": boxes}))
    return root


@pytest.fixture(scope="module")
def library(root: Path) -> MomentLibrary:
    return MomentLibrary(root, "dev")


def test_moments_are_where_the_scenes_of_the_query_are(library: MomentLibrary, tmp_path: Path) -> None:
    asked = write_moment_video(library, tmp_path / "v.mp4", seed=3, recipe=RECIPE, options=SMALL)
    kinds = [query.kind for query in asked.queries]
    assert {kind: kinds.count(kind) for kind in ("one", "several", "absent", "hard absent")} == {
        "one": 2,
        "several": 2,
        "absent": 2,
        "hard absent": 2,
    }
    for query in asked.queries:
        shown = [
            (scene.t_start, scene.t_end)
            for scene in asked.truth.scenes
            if query.text in scene.captions or ("class" in query.kind and scene.file.startswith(query.text))
        ]
        covered = [span for span in shown if any(a <= span[0] and span[1] <= b for a, b in query.moments)]
        assert covered == shown, query
        assert sum(b - a for a, b in query.moments) == pytest.approx(sum(b - a for a, b in shown)), query
        assert (len(query.moments) == 0) == ("absent" in query.kind), query
        assert query.kind != "several" or len(query.moments) > 1
        assert all(a[1] < b[0] for a, b in zip(query.moments, query.moments[1:], strict=False))
    assert read_moment_video(tmp_path / "v.mp4") == asked
    assert not list(tmp_path.glob("*.part"))


def test_the_same_seed_gives_the_same_and_another_another(library: MomentLibrary, tmp_path: Path) -> None:
    one, same, other = (
        write_moment_video(library, tmp_path / f"{i}.mp4", seed=seed, recipe=RECIPE, options=SMALL)
        for i, seed in enumerate((3, 3, 4))
    )
    assert one.queries == same.queries != other.queries
    assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


def test_what_comes_again_does_not_follow_itself(library: MomentLibrary, tmp_path: Path) -> None:
    recipe = MomentRecipe(
        once=1, again=2, distractors=0, of_class=0, others=0, absent=0, hard_absent=0, alike=(0.2, 0.8)
    )
    for seed in range(6):
        asked = write_moment_video(library, tmp_path / "v.mp4", seed=seed, recipe=recipe, options=SMALL)
        files = [scene.file for scene in asked.truth.scenes]
        assert all(a != b for a, b in zip(files, files[1:], strict=False))
        assert len(files) > len(set(files)) == 3


def test_too_few_scenes_to_part_those_that_come_again_are_refused(library: MomentLibrary, tmp_path: Path) -> None:
    recipe = MomentRecipe(once=0, again=1, distractors=0, of_class=0, others=0)
    with pytest.raises(ValueError, match="too few to part"):
        write_moment_video(library, tmp_path / "v.mp4", seed=1, recipe=recipe, options=SMALL)
    assert not list(tmp_path.iterdir())


def test_captions_with_words_in_common_are_alike() -> None:
    alike = caption_similarity([["a dog runs on sand"], ["the dog runs on grass"], ["people eat bread"], ["eat bread"]])
    assert alike.shape == (4, 4) and not alike.diagonal().any()
    np.testing.assert_allclose(alike, alike.T)
    assert alike[0, 1] > 0.5 > alike[0, 2] == alike[1, 3] == 0


def test_a_class_is_shown_absent_or_unknown() -> None:
    large, small = (10, 10, 150, 150), (10, 10, 30, 30)
    boxes = [
        [("dog", 0.9, *large)],
        [("dog", 0.3, *large)],
        [("dog", 0.3, *large)],
        [("dog", 0.9, *small)],
        [],
        [],
        [("cat", 0.9, *large)],
    ]
    captions = [["a pet"], ["two dogs"], ["a pet"], ["a pet"], ["a dog"], ["a pet"], ["it catches dogged prey"]]
    names, shows = shown_classes(boxes, captions)
    assert names == ("cat", "dog")
    assert shows[:, 1].tolist() == [1, 1, -1, -1, -1, 0, 0]
    assert shows[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1]

"""The graphs of objects: what they say fits together, and objects are told whether anything else is asked or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from onlooker import configs
from onlooker.pipeline.assemble import make_plan


@pytest.mark.parametrize("live", [False, True])
def test_objects_are_followed_beside_captions_and_queries(live: bool) -> None:
    plan = make_plan("objects", live=live)
    assert plan.graph.live == live
    assert plan.notices == []
    nodes = {node.name: node for node in plan.graph.nodes}
    assert list(nodes) == ["decode", "tower", "memory", "caption", "objects", "tracks"]
    assert {"caption.events", "tracks.events"} <= set(plan.graph.event_edges)
    assert dict(nodes["tracks"].inputs) == {
        "detections": "objects.detections",
        "frames": "decode.frames",
        "tokens": "tower.tokens",
    }
    assert nodes["objects"].config.batch == (1 if live else 4)  # live frames come one by one
    asked = make_plan("objects", queries=["a dog"], overrides=["tracks.names=[dog, woman]", "tracks.captioner=null"])
    config = next(node.config for node in asked.graph.nodes if node.name == "tracks")
    assert (config.names, config.captioner) == (["dog", "woman"], None)
    assert "queries.events" in asked.graph.event_edges


def test_with_another_tower_there_are_no_objects_and_it_is_said() -> None:
    plan = make_plan("objects", model="ViT-B-32:openai", queries=["a dog"])
    assert "no objects: the embedded detector reads the tower 'tiny', not 'ViT-B-32:openai'." in " ".join(plan.notices)
    assert not {"objects", "tracks"} & {node.name for node in plan.graph.nodes}


def test_detections_of_others_can_be_followed(tmp_path: Path) -> None:
    """A detector of transformers finds the objects; ours gives them the features by which they are told apart."""
    graph = yaml.safe_load(builtin("objects").read_text(encoding="utf-8"))
    graph["nodes"]["others"] = {
        "use": "hf_detector",
        "stage": "tower",
        "inputs": {"frames": "decode.frames"},
        "config": {"model": "PekingU/rtdetr_r18vd"},
    }
    graph["nodes"]["objects"]["inputs"]["proposals"] = "others.detections"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    plan = make_plan(str(tmp_path / "mine.yaml"))
    order = [node.name for node in plan.graph.nodes]
    assert order.index("others") < order.index("objects") < order.index("tracks")


def builtin(name: str) -> Path:
    """The file of a graph that comes with the package."""
    return Path(configs.__file__).parent / f"{name}.yaml"

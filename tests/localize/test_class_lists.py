"""Lists of classes: what is read, and what is said about what cannot be."""

import pytest

from onlooker.operators.localize.class_lists import (
    CLASS_TEMPLATES,
    ClassListError,
    class_prompts,
    parse_classes,
    query_prompts,
    read_class_list,
)
from onlooker.operators.localize.node import QueryLocalizerConfig


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_list_has_one_class_a_line_and_comments(tmp_path):
    path = write(tmp_path, "\ufeff# of the yard\r\n\r\ndog\r\ntvmonitor, television # on the wall\r\nroute#9\r\n")
    dog, screen, route = parse_classes(read_class_list(path))
    assert (dog.name, dog.words) == ("dog", ("dog",))
    assert (screen.name, screen.words) == ("tvmonitor", ("tvmonitor", "television"))
    assert route.name == "route#9", "a # inside a word is part of it"


def test_every_word_is_put_into_every_template():
    (entry,) = parse_classes(["cat, kitten"])
    assert class_prompts(entry, ["a {}", "the {} sleeps"]) == [
        "a cat",
        "the cat sleeps",
        "a kitten",
        "the kitten sleeps",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no class"),
        ("# nothing\n", "names no class"),
        ("dog\ncat\ndog, hound\n", "line 3: class 'dog' was named in line 1 already"),
        ("dog\ncat,,kitten\n", "line 2: 'cat,,kitten' has an empty word"),
        ("x" * 300, "too long"),
    ],
)
def test_what_is_no_list_is_told_in_one_line(tmp_path, text, said):
    with pytest.raises(ClassListError, match=said) as caught:
        read_class_list(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_other_encodings_and_missing_files_are_told(tmp_path):
    with pytest.raises(ClassListError, match="UTF-8"):
        read_class_list(write(tmp_path, "h\u00fctte", "latin-1"))
    with pytest.raises(ClassListError, match="no such file"):
        read_class_list(tmp_path / "none.txt")


def test_a_template_needs_one_place_for_the_class():
    (entry,) = parse_classes(["dog"])
    for template in ("a dog", "{} and {}"):
        with pytest.raises(ClassListError, match="needs one {}"):
            class_prompts(entry, [template])
    with pytest.raises(ClassListError, match="at least one template"):
        class_prompts(entry, [])


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(ClassListError, match="'dog' is named 2 times"):
        parse_classes(["dog", "cat", "dog, hound"])
    assert parse_classes([]) == []


def test_short_queries_are_asked_for_like_classes_and_sentences_as_they_are():
    dog = [template.replace("{}", "dog") for template in CLASS_TEMPLATES]
    assert query_prompts("dog") == query_prompts("a dog") == query_prompts("The dog .") == dog
    assert query_prompts("a man pours coffee .") == ["a man pours coffee"]
    assert len(query_prompts("a")) == len(query_prompts("...")) == len(CLASS_TEMPLATES)


def test_a_config_takes_names_or_a_file(tmp_path):
    path = write(tmp_path, "dog\ncat, kitten\n")
    config = QueryLocalizerConfig(queries=["a red car drives by"], classes=str(path), templates=["some {}"])
    assert config.prompts() == {
        "a red car drives by": ["a red car drives by"],
        "dog": ["some dog"],
        "cat": ["some cat", "some kitten"],
    }
    again = QueryLocalizerConfig.model_validate(config.model_dump(mode="json"))
    path.unlink()
    assert again == config, "a config that was read does not need the file any more"


def test_a_config_refuses_what_is_both_query_and_class():
    with pytest.raises(ValueError, match="both a query and a class"):
        QueryLocalizerConfig(queries=["dog"], classes=["dog"])

"""The PTB tokenizer against the Stanford program, where Java and its jar are there, and what it does by itself."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from onlooker.operators.caption.metrics.meteor import MeteorUnavailable, find_jar, find_java
from onlooker.operators.caption.metrics.ptb import caption_tokens, split_words, tokenize

HARD = """\
It's the dogs' ball; they can't, won't, shan't and mustn't've. I'd've, we'll, you're, o'clock, ma'am, 'tis, 'twas, 'em
"double" 'single' ``tex'' rock 'n' roll the '90s 1990's y'all O'Neill d'Artagnan c'mon gonna wanna cannot TODAY'S CD's
well-known t-shirts - a -- b a--b a---b -handed pre- 20-year-old 5.5-inch man-'s x - y – z — w a–b
$5.00 US$10 £3 €4 5¢ 50% #1 #tag @user A&B at&t Q&A C++ C# 1,000 3.5 .5 -5 +5 5:30pm 1/2 3 1/2 1/22/2010 24/7 1st 5'10"
e.g. this, i.e. that, etc. The end. Mr. Smith vs. Dr. Who at 5 a.m. in the U.S. She left. Jan. 5, No. 7, No. Ph.D.
wait... what.. a. . . b … well.... end?! what??? wow!!! hi!! yahoo!x end.Then end,then end;then
(paren) [bracket] {brace} -LRB- <b>bold</b> <a href="x y"> < 3 > << >> <3 &amp; &lt; &quot;q&quot; &nbsp; x
http://www.x.com/a?b=c, www.foo.com foo.com a@b.com me@x.co.uk file.txt (http://a.b/c). https://t.co/x!
:) :-( ;D =P >:( ^_^ -_- * ** a*b ~ a_b __ | a/b he/she w/ s/he and/or/not \\ = + a=b
café naïve 日本語 Ελλάδα x² ½ 5° ™ “curly” ‘quotes’ it’s don’t «guillemets» a…b Ørsted
(555) 123-4567 555-1234 800 555-1234 +1-555-123-4567 triple A.
As he said. capital T.
She went home and etc.
Then
  leading and trailing   blanks\t tabs\u00a0nbsp

. ! ? ,
-
it's 5." He said "go!" 'I' "a" "." ',' "x",
"""
"""Lines made up to be hard. Their order matters: what follows a line counts."""

_ATOMS = (
    "a b the dog Dog IT it's don't 5 10 1,000 3.5 1/2 . . , , ! ? ; : \" \" ' ' ( ) [ ] - - -- ... & / $ # % + = < > "
    "U.S. a.m. etc. Mr. Jan. no. x A. he'll I've dogs' 'til cannot t-shirt foo.com :) $5 50% 5:30 café … “ ” ’ — "
    "1990s '90s #1 AT&T w/ s/he She The 3rd o'clock e.g. vs. 5-10 20-year-old"
)
ATOMS = _ATOMS.split(" ")


def stanford(lines: Sequence[str], folder: Path) -> list[list[str]]:
    """What the Stanford program answers to the lines of one file."""
    try:
        java, jar = find_java(), find_jar("tokenizer", "stanford-corenlp-3.4.1.jar")
    except MeteorUnavailable as error:
        pytest.skip(f"the Stanford tokenizer cannot be asked: {error}")
    text = folder / "lines.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    command = [java, "-XX:+UseSerialGC", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    answer = subprocess.run([*command, "-preserveLines", "-lowerCase", str(text)], capture_output=True, check=True)
    return [line.rstrip().split(" ") if line.rstrip() else [] for line in answer.stdout.decode().split("\n")]


def differences(lines: Sequence[str], folder: Path) -> list[str]:
    expected, actual = stanford(lines, folder), split_words("\n".join(lines))
    assert len(expected) == len(actual) == len(lines)
    return [
        f"{line!r}: {' '.join(right)!r}, not {' '.join(own)!r}"
        for line, right, own in zip(lines, expected, actual, strict=True)
        if right != own
    ]


def test_hard_lines(tmp_path: Path) -> None:
    assert not differences(HARD.split("\n"), tmp_path)


def test_random_compositions(tmp_path: Path) -> None:
    """Pieces glued at random, far wilder than captions: at most 2 % of such lines may differ."""
    rng = random.Random(0)
    lines = []
    for _ in range(3000):
        pieces = rng.choices(ATOMS, k=rng.randint(1, 6))
        lines.append("".join(piece + rng.choice(["", " ", " ", " "]) for piece in pieces).strip())
    wrong = differences(lines, tmp_path)
    assert len(wrong) <= len(lines) * 0.02, wrong[:20]


@pytest.mark.data
def test_captions_of_the_data_folder(tmp_path: Path) -> None:
    """All captions of Flickr8k and of the ActivityNet, TACoS, Charades and QVHighlights annotations: none differs."""
    data = Path(os.environ["ONLOOKER_DATA"])
    lines = [line.split("\t", 1)[1] for line in _text(data / "flickr8k" / "Flickr8k.token.txt.gz") if "\t" in line]
    for path in sorted((data / "annotations").glob("*.json.gz")):
        entries = json.loads("\n".join(_text(path))).values()
        lines += [text.replace("\n", " ") for entry in entries for text in entry["sentences"]]
    for path in sorted((data / "annotations").glob("*.jsonl.gz")):
        lines += [json.loads(line)["query"] for line in _text(path) if line]
    for path in sorted((data / "annotations").glob("charades*.txt.gz")):
        lines += [line.split("##", 1)[1] for line in _text(path) if "##" in line]
    assert len(lines) > 100_000
    assert not differences(lines, tmp_path)


def _text(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")


def test_one_caption_per_line_whatever_it_holds() -> None:
    captions = ["", "a\nb", "c\r\nd", "e\u2028f", "...", "", "last"]
    assert tokenize(captions) == ["", "a b", "c d", "e f", "", "", "last"]
    assert tokenize([]) == [] and tokenize([""]) == [""]


def test_punctuation_goes_and_brackets_stay() -> None:
    assert tokenize(["Hello, (World)! -- 'ok'; \"yes\"..."]) == ["hello -lrb- world -rrb- ok yes"]


def test_a_caption_by_itself_does_not_depend_on_the_next() -> None:
    together = tokenize(["he draws a capital A.", "She leaves."])
    assert together[0] == "he draws a capital a"  # as the Stanford program, which sees a sentence begin
    assert caption_tokens("he draws a capital A.") == "he draws a capital a."

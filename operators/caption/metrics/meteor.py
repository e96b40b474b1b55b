"""METEOR 1.5 (Denkowski and Lavie 2014), by the published Java program: one process that is kept.

The jar and its paraphrase table come in the PyPI package ``pycocoevalcap`` (104 MB), which is not imported: the extra
``onlooker[eval]`` installs it. Java must be on the PATH. Where either is missing METEOR is not computed; there is no
stand-in for it.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from onlooker.operators.errors import OnlookerError

__all__ = ["METEOR_JAR", "Meteor", "MeteorError", "MeteorUnavailable", "find_java", "find_jar"]

METEOR_JAR = ("meteor", "meteor-1.5.jar")
"""Where it lies in the package, for `find_jar`."""

_PACKAGE = "pycocoevalcap"
_BATCH = 100
"""Lines in flight. An answer has at most some 200 bytes, so the answers to a batch fit into a pipe: no deadlock."""


class MeteorUnavailable(OnlookerError):
    """Java or the METEOR jar is missing. The message says which, and how to get it."""


class MeteorError(OnlookerError):
    """The METEOR process ended or answered what is not a score."""


def find_java() -> str:
    """The Java launcher.

    Raises:
        MeteorUnavailable: there is none on the PATH.
    """
    java = shutil.which("java")
    if java is None:
        raise MeteorUnavailable(
            "no `java` on the PATH, so no METEOR and no SODA_c; install a Java runtime (Debian: apt install "
            "default-jre-headless) or leave METEOR out (--no-meteor)."
        )
    return java


def find_jar(*parts: str) -> Path:
    """A file of the package ``pycocoevalcap``, which is found without being imported.

    Raises:
        MeteorUnavailable: the package is not installed or lacks the file.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MeteorUnavailable(
            f"the package {_PACKAGE}, which holds METEOR, is not installed, so no METEOR and no SODA_c; "
            "pip install 'onlooker[eval]' or leave METEOR out (--no-meteor)."
        )
    path = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    if not path.is_file():
        raise MeteorUnavailable(f"{_PACKAGE} is installed without {'/'.join(parts)}; pip install --force-reinstall it.")
    return path


class Meteor:
    """Scores tokenised captions (``ptb.tokenize``) as the COCO caption evaluation does: ``-l en -norm``.

    METEOR is not symmetric: hypothesis and references are not the same thing. Answers are remembered, so that a pair
    that comes back costs nothing. Safe to share between threads; close it, or use it in a ``with`` statement.

    Raises:
        MeteorUnavailable: Java or the jar is missing.
    """

    def __init__(self) -> None:
        """Start the process; it loads its tables (seconds) before it answers the first question."""
        jar = find_jar(*METEOR_JAR)
        # One collector thread, as the process shares the machine; its tables take most of a gigabyte.
        command = [find_java(), "-XX:+UseSerialGC", "-Xms1G", "-Xmx2G", "-jar", str(jar)]
        self._process = subprocess.Popen(
            [*command, "-", "-", "-stdio", "-l", "en", "-norm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=jar.parent,
            encoding="utf-8",
        )
        self._lock = threading.Lock()
        self._statistics: dict[str, str] = {}
        self._scores: dict[str, float] = {}

    def __enter__(self) -> Self:
        """The scorer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()

    def close(self) -> None:
        """End the process; closing twice does nothing."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def corpus(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        """The score of all items together, in 0..1: METEOR sums their statistics, so it is not the mean.

        Raises:
            ValueError: no items, lists of different length, or an item without reference.
            MeteorError: the process failed.
        """
        with self._lock:
            statistics = self._statistics_of(hypotheses, references)
            # For n items the program answers n scores and then the score of all.
            self._write(["EVAL ||| " + " ||| ".join(statistics)])
            return [self._number(self._read()) for _ in range(len(statistics) + 1)][-1]

    def each(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """The score of every item by itself, in 0..1. Raises what ``corpus`` raises."""
        with self._lock:
            statistics = self._statistics_of(hypotheses, references)
            new = list(dict.fromkeys(s for s in statistics if s not in self._scores))
            for i in range(0, len(new), _BATCH):
                batch = new[i : i + _BATCH]
                self._write([f"EVAL ||| {s}" for s in batch])
                for s in batch:
                    self._scores[s] = self._number(self._read())
                    self._read()  # the score of all, which are this one
            return [self._scores[s] for s in statistics]

    def _statistics_of(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
        """What METEOR counts in each item (matches, lengths, chunks), as its text."""
        if not hypotheses or len(hypotheses) != len(references) or not all(references):
            raise ValueError(f"{len(hypotheses)} captions for {len(references)} items: each needs one, and a reference")
        lines = [_line(hypothesis, texts) for hypothesis, texts in zip(hypotheses, references, strict=True)]
        new = list(dict.fromkeys(line for line in lines if line not in self._statistics))
        for i in range(0, len(new), _BATCH):
            batch = new[i : i + _BATCH]
            self._write(batch)
            self._statistics.update((line, self._read()) for line in batch)
        return [self._statistics[line] for line in lines]

    def _write(self, lines: list[str]) -> None:
        try:
            pipe = self._pipe(self._process.stdin)
            pipe.write("".join(line + "\n" for line in lines))
            pipe.flush()
        except (BrokenPipeError, ValueError) as error:
            raise MeteorError(f"the METEOR process is gone ({error}); it needs 2 GB of memory.") from error

    def _read(self) -> str:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise MeteorError("the METEOR process ended without an answer; it needs 2 GB of memory.")
        return line.strip()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None, "opened as a pipe"
        return pipe

    @staticmethod
    def _number(text: str) -> float:
        try:
            number = float(text)
        except ValueError as error:
            raise MeteorError(f"METEOR answered {text[:80]!r}, which is no score.") from error
        return 0.0 if number != number else number  # an empty caption against an empty reference gives NaN


def _line(hypothesis: str, references: Sequence[str]) -> str:
    """One question of METEOR's line protocol, whose separator no text may hold."""
    clean = [" ".join(text.replace("|||", "").split("\n")).replace("  ", " ") for text in (*references, hypothesis)]
    return " ||| ".join(["SCORE", *clean])

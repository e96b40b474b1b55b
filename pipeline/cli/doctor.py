"""``onlooker doctor``: what is installed, what works, what is missing and how to get it; or a look at a source."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.resources
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onlooker import __version__

from ..errors import OnlookerError, UsageError
from ..secrets import Secrets
from .argv import out_of_process_list
from .finding import Finding
from .run import add_secrets_option

__all__ = ["add_parser"]

_ENCODERS = {"libx264": "annotated video (--video)", "mjpeg": "key frames"}
_DECODERS = {"h264": "most files and cameras", "hevc": "newer cameras", "vp9": "WebM", "av1": "newer files"}


def add_parser(commands: Any) -> None:
    """Add ``onlooker doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="tell what is installed and what is missing, or what is the matter with a camera",
        description="Look at this installation, or at one source. Exits with 2 if something is missing or wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  onlooker doctor --source rtsp://192.168.1.20/stream1\n"
        "  onlooker doctor --source 'rtsp://admin:${env:CAM_PASSWORD}@192.168.1.20/stream1'",
    )
    parser.add_argument(
        "--source", metavar="SOURCE", help="camera, stream or file to look at: a URL, webcam:0, a path; quote a ${...}"
    )
    parser.add_argument(
        "--seconds", metavar="S", type=float, default=6.0, help="how long to watch the source (default: %(default)s)"
    )
    add_secrets_option(parser)
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    return _look_at_installation() if args.source is None else _look_at_source(args)


def _look_at_installation() -> int:
    missing = 0
    for title, findings in _sections():
        print(title)
        for finding in findings:
            missing += finding.level == "missing"
            print(finding)
        print()
    print("everything that onlooker needs is here." if not missing else f"{missing} missing; see above.")
    return 2 if missing else 0


def _look_at_source(args: argparse.Namespace) -> int:
    from .doctor_source import look_at_source

    if not 0 < args.seconds <= 3600:
        raise UsageError(f"--seconds must lie between 0 and 3600, not {args.seconds:g}.")
    secrets = Secrets(args.secrets)
    [source] = out_of_process_list([args.source])
    text = secrets.resolve(source, "the source")

    def tell(finding: Finding) -> None:
        print(secrets.mask(str(finding)), flush=True)

    try:
        problem = look_at_source(text, args.seconds, tell)
    except OnlookerError as error:
        raise UsageError(secrets.mask(str(error))) from None
    print("\nall is well." if problem is None else f"\n{secrets.mask(problem.message)}")
    return 0 if problem is None else 2


def _sections() -> Iterator[tuple[str, list[Finding]]]:
    yield "versions", [*_versions()]
    yield "devices", [*_devices()]
    yield "codecs", [*_codecs()]
    yield "weights", [*_weights()]
    yield "runners", [*_runners()]
    yield "metrics", [*_metrics()]


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "onlooker", __version__)
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for requirement in importlib.metadata.requires("onlooker") or []:
        condition = requirement.partition(";")[2]
        if "extra ==" in condition:
            continue
        name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
        try:
            yield Finding("ok", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            if name == "decord" and platform.machine() not in ("x86_64", "AMD64"):
                yield Finding("note", name, "has no wheels for this processor; PyAV serves random access instead")
            else:
                yield Finding("missing", name, f"pip install '{requirement.partition(';')[0].strip()}'")


def _devices() -> Iterator[Finding]:
    yield Finding("ok", "cpu", f"{_cores()} cores usable")
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            yield Finding("ok", f"cuda:{i}", torch.cuda.get_device_name(i))
    else:
        yield Finding("note", "cuda", "none; models run on the CPU")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _codecs() -> Iterator[Finding]:
    if importlib.util.find_spec("av") is None:
        return
    import av
    from av.codec import Codec

    yield Finding("ok", "libav", ", ".join(f"{k} {'.'.join(map(str, v))}" for k, v in av.library_versions.items()))
    for mode, table in (("r", _DECODERS), ("w", _ENCODERS)):
        for name, use in table.items():
            verb = "decodes" if mode == "r" else "encodes"
            try:
                Codec(name, mode)  # type: ignore[arg-type]
                yield Finding("ok", name, f"{verb}: {use}")
            except ValueError:
                yield Finding("note", name, f"this PyAV build lacks it; needed for {use}: pip install -U av")


def _weights() -> Iterator[Finding]:
    root = importlib.resources.files("onlooker.operators")
    total = 0
    for family in ("tower", "caption"):
        folder = Path(str(root / family / "weights" / "tiny"))
        files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        size = sum(f.stat().st_size for f in files)
        total += size
        if files:
            yield Finding("ok", f"tiny {family}", f"{size / 1e6:.1f} MB; terms: LICENSE-WEIGHTS, card: {folder.name}")
        else:
            yield Finding(
                "missing", f"tiny {family}", "the package is incomplete: pip install --force-reinstall onlooker"
            )
    yield Finding(
        "note", "terms of tiny", "trained on research-use data, see LICENSE-WEIGHTS; --model NAME never loads it"
    )
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    yield Finding("note", "downloads of open_clip", f"{cache} ({'there' if cache.exists() else 'empty so far'})")


def _runners() -> Iterator[Finding]:
    yield Finding("ok", "local", "threads of one process; needs nothing else")
    if importlib.util.find_spec("ray") is None:
        yield Finding("missing", "ray", "pip install 'ray[default]', or use --runner local")
        return
    free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None
    if free is not None and free < 256 << 20:
        yield Finding("note", "ray", f"/dev/shm has {free >> 20} MB free; Ray wants 256 MB, give the container more")
    else:
        yield Finding("ok", "ray", "a local instance is started and stopped with each run")


def _metrics() -> Iterator[Finding]:
    from onlooker.operators.caption.metrics.meteor import METEOR_JAR, MeteorUnavailable, find_jar, find_java

    try:
        find_jar(*METEOR_JAR)
        yield Finding("ok", "METEOR, SODA_c", f"by {find_java()}")
    except MeteorUnavailable as unavailable:
        yield Finding("note", "METEOR, SODA_c", str(unavailable))

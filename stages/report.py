"""One page to hear and judge a run: report/index.html; and the model card models/README.md.

The page opens from the file system and from any static server, and loads nothing from elsewhere. It plays the samples
and report.recordings recordings of the test split beside their copy synthesis (log-mel spectrogram and back), by the
vocoder and by Griffin-Lim, with their pitch. Of a model that is told what is sung (model.condition_on) it also plays
samples that were asked to sing what these recordings do, or a score; of one that reads texts, samples that sing them,
with pictures of when it reads which symbol. It shows training curves, metrics, the corpus, all settings and the hashes
of data and model. What depends on git (the commit, the metrics of the last commit) is in
report/run.js, which DVC passes over (.dvcignore): the rest is the same for the same run, in every clone.
"""

import json
import shutil
import time
from collections.abc import Hashable
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from melnet.audio.pitch import FRAME_SECONDS, HIGHEST, LOWEST
from melnet.data.atomic import atomic_folder, atomic_write
from melnet.data.dataset import Passage
from melnet.data.shards import Shards
from melnet.data.split import SPLITS
from melnet.data.tracks import CONDITIONS, Tracks
from stages.command import main
from stages.figures import VOCODER_LOSSES, alignment_pictures, loss_unit, save
from stages.parameters import Generate, Params
from stages.paths import CLEAN, METRICS, MODELS, REPORT, SAMPLES, SHARDS, TRACKS
from stages.report_page import gallery, summary
from stages.report_page.player_assets import OUTLINE_HEIGHT, PITCH_HEIGHT, colour_steps, frequency_ticks
from stages.report_page.versions import flat, head, metrics, output_hashes

MEMORISED_BELOW = 0.5  # memorised.ratio_low of generate.json of which the page warns
CARD = MODELS / "README.md"
PAGE = Path(__file__).with_name("report_page") / "templates"
ASSETS = ("page.css", "page.js", "uPlot.iife.min.js", "uPlot.min.css", "uPlot.LICENSE")


def report(params: Params) -> None:
    """Write page and card; raise :class:`MelnetError` if what they show, or the vocoder, is missing or damaged."""
    started = time.monotonic()
    print(
        f"page for {params.generate.count} samples and {params.report.recordings} recordings with copy synthesis",
        flush=True,
    )
    shards = {split: Shards(SHARDS / split) for split in SPLITS}
    conditions = [condition for condition in CONDITIONS if condition in params.model.conditions]
    told = Tracks(TRACKS, conditions) if conditions else None
    vocoder = _vocoder(params.generate)
    pieces = gallery.pieces(params.generate, params.report.recordings, shards["test"], vocoder, told)
    content = _content(params, shards) | {"told": told}
    mel = shards["test"].spec.mel
    with atomic_folder(REPORT) as folder:
        tracks, limits = gallery.write(folder, pieces, mel.sample_rate)
        groups = {
            name: [list(versions) for _, versions in groupby(group, key=lambda track: track.piece.title)]
            for name, group in groupby(tracks, key=lambda track: track.piece.group)
        }
        alignments = gallery.read_alignments()
        if alignments:
            save(alignment_pictures(alignments), folder / "pictures" / "alignments.png")
        content |= {
            "groups": groups,
            # A score, which may take minutes, has a scale of its own.
            "longest": max(track.seconds for track in tracks if track.piece.group != "score"),
            "limits": limits,
            "alignments": alignments,
            "colours": colour_steps(9),
            "memorised_below": MEMORISED_BELOW,
            "hz": frequency_ticks(mel.edges_hz),
            "outline": (gallery.OUTLINE_BINS, OUTLINE_HEIGHT),
            "pitch": {"height": PITCH_HEIGHT, "frame": FRAME_SECONDS, "lowest": LOWEST, "highest": HIGHEST},
        }
        (folder / "index.html").write_text(_rendered("index.html.j2", content), encoding="utf-8")
        run = json.dumps(head(list(content["metrics"])), indent=2)
        (folder / "run.js").write_text(f"window.melnetRun = {run};\n", encoding="utf-8")
        for name in ASSETS:
            shutil.copyfile(PAGE / name, folder / name)
    with atomic_write(CARD) as temporary:
        temporary.write_text(_rendered("card.md.j2", content), encoding="utf-8")
    print(f"{REPORT / 'index.html'}: {len(tracks)} tracks; {CARD}; {time.monotonic() - started:.0f} s")


def _vocoder(settings: Generate) -> gallery.Invert | None:
    """The trained vocoder; None if there is none and none was wanted."""
    if settings.inversion == "griffin-lim" and not (MODELS / "vocoder.json").exists():
        return None
    # These load TensorFlow, which nothing else here needs.
    from melnet.data.dataset import ids_of
    from melnet.saved import load_config
    from melnet.vocoder.saved import load_vocoder

    config = load_config(MODELS)
    vocoder, _ = load_vocoder(MODELS, config.mel, config.singers)

    def invert(passages: list[Passage]) -> np.ndarray:
        singers = ids_of([passage.singer for passage in passages], config.singers)
        return vocoder(np.stack([passage.log_mel for passage in passages]), singers.tolist(), settings.seed)

    return invert


def _content(params: Params, shards: dict[str, Shards]) -> dict[str, Any]:
    """Numbers and sentences that page and card share."""
    defaults = flat(YAML(typ="safe").load(PAGE / "defaults.yaml"))
    settings = flat(
        params.model_dump(exclude={"execution"}, exclude_unset=True)
    )  # which changes no result, and so not the page
    # Not the card, nor anything else that this stage makes: its own last hash would be part of the next.
    models = sorted(path for path in MODELS.rglob("*") if path.is_file() and path != CARD)
    measured = metrics()
    curves = _curves([*params.model.tier_names, *VOCODER_LOSSES])
    return {
        "params": params,
        "settings": {key: (value, defaults.get(key)) for key, value in settings.items()},
        "changed": [key for key, value in settings.items() if defaults.get(key) != value],
        "hashes": output_hashes([CLEAN, SHARDS, *models, SAMPLES]),
        "metrics": measured,
        "meanings": {
            name: asdict(metric) for values in measured.values() for name, metric in summary.meanings(values).items()
        },
        "worth": summary.worth(measured.get("evaluate", {})),
        "by_vocoder": gallery.by_vocoder(),
        "curves": curves,
        "units": {name: loss_unit(name) for name in curves},
        "corpus": summary.corpus(shards),
    }


def _curves(names: list[str]) -> dict[str, dict[Hashable, list[float]]]:
    """The columns of metrics/history/NAME.csv for each name, of a tier or of a network of the vocoder, that has one."""
    files = {name: METRICS / "history" / f"{name}.csv" for name in names}
    return {name: pd.read_csv(path).to_dict("list") for name, path in files.items() if path.is_file()}


def _rendered(template: str, content: dict[str, Any]) -> str:
    """A rendered template. HTML is escaped; Markdown is not."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(content)


if __name__ == "__main__":
    main(report, __doc__)

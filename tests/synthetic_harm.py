"""Run directories of benchmarks of harm as `jaxalign.evaluate` writes them, without any model: numbers are drawn."""

import contextlib
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import run
from judged_rows import judged_table
from matplotlib.figure import Figure

from jaxalign.analysis import figures
from jaxalign.report import main
from jaxalign.runs.records import content_hashes, digest
from jaxalign.safety.judged import JudgedRow
from jaxalign.safety.judgements import Judgement
from jaxalign.safety.summary import as_scale, harm_rows
from jaxalign.values.schwartz import VALUES
from jaxalign.values.targets import Target, extreme_targets

CATEGORIES = ("hate_speech", "sexual_content", "violence", "privacy_violation")
EXTREME = extreme_targets()
KAPPA = {"estimate": 0.8, "low": 0.7, "high": 0.9, "n": 120, "missing": 0, "left_out": 0}


def judge_entry(
    name: str = "probe", kappa: float | None = 0.8, about: str = "harm", identity: str | None = None
) -> dict:
    """What a summary says of a judge."""
    line = f"judge: {name}, " + ("uncalibrated" if kappa is None else f"κ {kappa:.2f} [0.70, 0.90] with 120 labels")
    return {
        "judge": name,
        "identity": identity or f"{name} 1",
        "about": about,
        "scale": [0.0, 1.0, 0.5],
        "kappa": None if kappa is None else {**KAPPA, "estimate": kappa},
        "area": None,
        "error": None,
        "labels": "shipped, held out",
        "line": line,
    }


@contextlib.contextmanager
def undrawn_figures() -> Iterator[None]:
    """Let an empty picture stand for each figure."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("as_png", "as_svg"):
            picture = getattr(figures, name)(Figure((0.1, 0.1)))
            patch.setattr(figures, name, lambda _, picture=picture: picture)
        yield


@dataclass
class Lab:
    """Writes runs into a folder."""

    root: Path
    benchmark: str = "beavertails"
    version: str = "aaaabbbbccccdddd"
    categories: Sequence[str] = CATEGORIES
    prompts: int = 6
    """In each category."""
    judges: list[dict] = field(default_factory=lambda: [judge_entry(), judge_entry("refusals", 0.7, "refusal")])
    effect: float = 0.0
    """How much harm grows with the score of power, per point."""
    drop: float = 0.2
    """How much less harm there is with a mitigation."""
    harmless: Sequence[str] = ()
    """The categories in which no response is harmful."""
    signature: str = "base-float32"
    numbered: bool = False
    """Whether the ids of prompts are mere numbers, as many benchmarks have them."""
    text: str = "A mild response."
    asking: dict = field(default_factory=lambda: {"temperature": 0.1, "stop": ["\n"], "prompt_format": "chat"})

    def adapter(self, target: Target | None, name: str = "", seed: int = 0, perplexity: float | None = 120.0) -> dict:
        """What a summary says of an adapter, whose training run is written too."""
        name = name or (target.name if target else "benign")
        folder = self.root / "training" / f"{name}-seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        readings = {"before": {"perplexity": 100.0}, "after": {"perplexity": perplexity}}
        (folder / "summary.json").write_text(json.dumps({"questionnaire": readings}))
        return {
            "model": name,
            "method": "adapter",
            "adapter": digest([name, seed]),
            "folder": str(folder / "adapter"),
            "scale": 1.0,
            "value": target.name if target else None,
            "target": target.by_value if target else None,
            "trained_tokens": 1000,
            "measured": {value: 0.5 + 0.8 * score for value, score in target.by_value.items()} if target else None,
        }

    def base(self) -> dict:
        """What a summary says of the base."""
        told = {"model": "base", "method": "base", "adapter": "", "folder": None}
        return {**told, "scale": None, "value": None, "target": None, "measured": None}

    def extreme(self, *names: str) -> list[dict]:
        """What a summary says of the base, and of an adapter for each of these extreme targets."""
        return [self.base(), *(self.adapter(EXTREME[name]) for name in names)]

    def report(self, capsys, *more: str, drawn: bool = False) -> str:
        """Make the report of all runs, and return what the command prints.

        Its figures are made but not `drawn`, unless a test looks at them: half of the time goes into the letters.
        """
        with contextlib.nullcontext() if drawn else undrawn_figures():
            return run(main, [f"runs={self.root}", *more], capsys)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of a table of the report."""
        with (self.root / "report" / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def page(self) -> str:
        """The page of the report."""
        return (self.root / "report" / "index.html").read_text(encoding="utf-8")

    def run(self, models: Sequence[dict], name: str, mitigation: str = "none", finished: bool = True) -> Path:
        """Write a run, and the stages of its models; return its directory."""
        path = self.root / name
        path.mkdir(parents=True)
        config = {"benchmark": {"kind": "harm", "name": self.benchmark}, "identity": {}, "run_files": []}
        (path / "config.yaml").write_text(yaml.safe_dump({**config, "run_format": 2}))
        if not finished:
            return path
        found, rows = [], []
        for about in models:
            mine = self._stages(about, mitigation)
            found.append({**about, **mine.pop("folders"), "files": mine["files"]})
            more = {
                **about,
                "mitigation": mitigation,
                "benchmark": self.benchmark,
                "version": self.version,
                "judge": self.judges[0]["judge"],
                "judge_identity": self.judges[0]["identity"],
                "several": False,
            }
            scale = as_scale(self.judges[0]["scale"])
            rows += [{**more, **row} for row in harm_rows(mine["table"], ["flagged_rate", "harmfulness_score"], scale)]
        summary = {
            "kind": "harm",
            "benchmark": {
                "name": self.benchmark,
                "version": self.version,
                "prompts": self.prompts * len(self.categories),
                "samples": 1,
                "limit": None,
                "cut": "whole",
            },
            "asking": self.asking,
            "model": {"name": "tiny", "signature": self.signature},
            "mitigation": {"name": mitigation, "left_aside": []},
            "models": found,
            "judges": self.judges,
            "rows": rows,
            "drops": [],
        }
        (path / "summary.json").write_text(json.dumps(summary, ensure_ascii=False))
        return path

    def write_hashes_anew(self) -> None:
        """Let the summaries of runs and stages have the hashes of the records as they are now."""
        for path in self.root.glob("stages/*/summary.json"):
            hashes = content_hashes(path.parent, [file.name for file in path.parent.glob("*.jsonl")])
            path.write_text(json.dumps({"files": hashes}))
        for path in self.root.glob("*/summary.json"):
            summary = json.loads(path.read_text())
            for about in summary["models"]:
                for stage in ("generate", "judge"):
                    about["files"] |= json.loads(Path(about[stage], "summary.json").read_text())["files"]
            path.write_text(json.dumps(summary, ensure_ascii=False))

    def _stages(self, about: dict, mitigation: str) -> dict:
        judge = self.judges[0]["judge"]
        title = f"{mitigation}-{about['model']}-{about['scale']}".replace("/", "-")
        harm = [*[x for x in (about["target"] or {}).values()], *[3.0] * len(VALUES)][VALUES.index("power")] - 3
        effect = 0.0 if about.get("control") else self.effect
        harm = 0.4 + effect * harm * (about["scale"] or 0) - (self.drop if mitigation != "none" else 0)
        random = np.random.Generator(np.random.PCG64(int(digest([title, judge]), 16) % 2**32))
        rows, judged, generated = [], [], []
        for category in self.categories:
            for number in range(self.prompts):
                identifier, draw = f"{category} {number}", float(random.random())
                identifier = str(1 + len(rows)) if self.numbered else identifier
                state = "blank" if draw < 0.04 else "repetitive" if draw < 0.08 else "not judged" if draw < 0.1 else ""
                state = state or ("refused" if draw < 0.2 else "answered")
                score = None if state in ("blank", "not judged") else float(np.clip(random.normal(harm, 0.2), 0, 1))
                score = 0.0 if score is not None and category in self.harmless else score
                missing = "unreadable" if state == "not judged" else None
                judgement = None if state == "blank" else Judgement(score, None, "", missing)
                rows.append(JudgedRow(identifier, category, "", 0, judgement, state))
                key = digest([about["adapter"], title, identifier], 32)
                line = {"id": identifier, "category": category, "group": "", "sample": 0, "key": key, "judge": judge}
                judged.append({**line, "score": score, "label": None, "missing": missing, "state": state})
                text = "" if state == "blank" else f"{self.text} ({about['model']}, {identifier})"
                generated.append(
                    {"key": key, "prompt": f"Prompt {identifier}?", "text": text, "tokens": 4, "end": "stop"}
                )
        places, files = {}, {}
        for stage, name, records in (
            ("generate", "generations.jsonl", generated),
            ("judge", "judged.jsonl", judged),
        ):
            more = judge if stage == "judge" else ""
            folder = self.root / "stages" / f"{stage}-{self.benchmark}-{title}-{digest([about['adapter'], more], 8)}"
            folder.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records)
            (folder / name).write_text(lines, encoding="utf-8")
            hashes = content_hashes(folder, [name])
            (folder / "summary.json").write_text(json.dumps({"files": hashes}))
            if stage == "judge":  # what is generated here depends on the judge, so two runs write other records
                files |= hashes
            places[stage] = str(folder)
        return {"table": judged_table(rows), "folders": places, "files": files}

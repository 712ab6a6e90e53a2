"""Check data before training: read what the trainer will read, and report whether to train.

    python -m data_prep.validate CONFIG.yaml [key=value ...]

CONFIG.yaml may be the training's own configuration, from which `train_data`, `eval_data` and the keys of this program
are read. A table of findings is printed for each source (`data_prep.checking.findings` defines the checks) and written
as JSON on request.

Exit status: 0 train; 1 do not train, there is an error; 2 wrong call. Warnings forbid nothing.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.checking.findings import CHECKS
from data_prep.checking.images import Evaluation, image_pool
from data_prep.checking.source import SourceCheck
from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import command
from data_prep.common.fill import Checked, key
from data_prep.derivation.joins import read_image_names
from data_prep.files.images import MAX_IMAGE_PIXELS
from data_prep.schema.data_source import DataLists


@dataclass(frozen=True)
class ValidateArguments(Checked):
    """Set how thorough the check is."""

    decode: bool = key(False, "Decode every image whole, which finds truncated files.")
    workers: int = key(os.cpu_count() or 1, "The number of processes that open images.", default_text="number of CPUs")
    max_image_pixels: int = key(
        MAX_IMAGE_PIXELS, "The largest image that is allowed, in pixels; a larger one is an error."
    )
    evaluation_images: list[str] = key(
        list,
        "The text files of evaluation sets' image names, one per line; training on these images, or on "
        "those of eval_data, is an error.",
    )
    max_bad_fraction: float = key(
        0.0, "The largest share of records, images or rows with an error that does not forbid training."
    )
    report: str | None = key(None, "The file that the findings are written to, as JSON.")

    def mistakes(self) -> Iterator[str]:
        if self.workers < 1:
            yield f"workers: {self.workers} must be at least 1"
        if not 0 <= self.max_bad_fraction < 1:
            yield f"max_bad_fraction: {self.max_bad_fraction} is not in [0, 1)"
        for path in self.evaluation_images:
            if not Path(path).is_file():
                yield f"evaluation_images: no such file: {path}"


def _source_report(check: SourceCheck, max_bad_fraction: float) -> dict[str, Any]:
    findings, frame = check.findings, check.frame
    checks = {
        name: {
            "severity": kind.severity,
            "count": findings.counts[name],
            "of": kind.of,
            "total": findings.totals[kind.of],
            "first": findings.first.get(name),
        }
        for name, kind in CHECKS.items()
    }
    return {
        "role": check.role,
        **asdict(check.source),
        "counts": dict(findings.totals),
        "text_boxes": {"boxes": frame.boxes, "outside_padded_square": frame.violations, "frame": frame.frame},
        "fatal": findings.fatal(max_bad_fraction),
        "checks": checks,
    }


def table(report: dict[str, Any]) -> str:
    """Format the report: a table for each source, then the verdict."""
    lines = []
    for source in report["sources"]:
        counts = ", ".join(f"{count:,} {name}" for name, count in source["counts"].items())
        lines += [f"{source['annotations']} ({source['role']}): {counts or 'nothing'}"]
        boxes = source["text_boxes"]
        if boxes["boxes"]:
            outside = f"{boxes['outside_padded_square']:,} could not be on the padded square"
            lines.append(f"  {boxes['boxes']:,} boxes in text, {outside}: their frame is {boxes['frame']}")
        failed = {name: check for name, check in source["checks"].items() if check["count"]}
        for name, check in sorted(failed.items(), key=lambda item: item[1]["severity"]):
            share = f"{check['count']:,} of {check['total']:,} {check['of']}" if check["total"] else f"{check['count']}"
            lines.append(f"  {check['severity']:7}  {name:16}  {share:24}  {CHECKS[name].meaning}")
            lines.append(f"{'':29}first: {check['first']}")
        lines.append(f"  {len(CHECKS) - len(failed)} checks found nothing")
    fatal = [f"{name} in {source['annotations']}" for source in report["sources"] for name in source["fatal"]]
    lines.append("train: yes" if report["train"] else f"train: NO - {'; '.join(fatal)}")
    return "\n".join(lines)


@command("data_prep.validate", DataLists, ValidateArguments, ignore_others_in_file=True)
def main(lists: DataLists, arguments: ValidateArguments) -> int:
    """Check data before training on it; exit status 1 if it may not be trained on."""
    evaluation = Evaluation(read_image_names(arguments.evaluation_images))
    sources = []
    with image_pool(arguments.workers, arguments.max_image_pixels, arguments.decode) as inspect:
        # held-out data first: its images are what training data must not hold
        for role, named in (("eval_data", lists.eval_data), ("train_data", lists.train_data)):
            for source in named:
                check = SourceCheck(source, role, evaluation, inspect)
                check.run()
                sources.append(_source_report(check, arguments.max_bad_fraction))
    train = not any(source["fatal"] for source in sources)
    report = {"train": train, "arguments": asdict(arguments), "sources": sources}
    print(table(report))
    if arguments.report is not None:
        Path(arguments.report).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(Path(arguments.report), json.dumps(report, indent=2) + "\n")
    return 0 if train else 1


if __name__ == "__main__":
    main()

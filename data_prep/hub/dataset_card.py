"""Write the README.md of a published data set of regions, as the Hub reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from huggingface_hub import DatasetCardData
from pydantic import BaseModel, Field, ValidationError

from data_prep.common.errors import DataError
from data_prep.common.markdown import markdown_table
from data_prep.derivation.derive import FLAGS
from data_prep.schema.sample import EXIF_POLICY, MANIFEST, SCHEMA_VERSION, read_manifest
from data_prep.sources import SOURCES, Source
from data_prep.work.shards import SAMPLES

CARD = """---
{metadata}
---

# {title}

Contextual regions of {rows:,} questions about images: the part of the image that shows the answer. They are made for
pre-LLM compression of visual tokens (PLC, one stage of CROP, EMNLP 2025) and are useful for any grounded question
answering.

**This data set contains no images.** Get them from their owners; `image` is a path below the folder you put them in.

## Load

```python
from datasets import load_dataset

regions = load_dataset("{place}", "{first}", split="train"){where}
```

Each source is a configuration. If its questions and answers are published too, they are `<source>-samples`.

## Columns

| column | meaning |
|---|---|
| `sample_id` | sha1 of the JSON list source, image, turn, question |
| `source`, `image`, `turn`, `question` | origin of the question; `turn` counts the questions of a record from 0 |
| `width`, `height` | size of the image file in pixels |
| `boxes` | annotated or matched boxes: pixels x1, y1, x2, y2 |
| `region` | union of the boxes; null: the whole image |
| `method` | origin of the boxes: {methods} |
| `score` | confidence, 0 to 1 |
| `flags` | corrections and doubts: see below |

Samples: `id` (as `sample_id`), `images`, `messages` of `role` and `content`.

Boxes are half-open pixels of the stored image; x2 - x1 is the width:

    0    x1      x2     width
    +----+-------+--------+--> x
    |    .       .        |
    +  y1 .. +---+        |        the pixel in column x2 or row y2 is outside
    |        |   |        |
    +  y2 .. +---+        |
    |                     |
    +---------------------+ height
    v y

EXIF: {exif}.

## Counts

{counts}

{flags}

## Licences

The questions and boxes come from other people's data sets. The licences stated here may be wrong or out of date:
**check each at its source before you use or redistribute it.** Images have licences of their own.

{licences}

## Train

With this project, {download}:

```yaml
train_data:
{train}
```
"""

SIZES = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]


class Manifest(BaseModel):
    """Hold the entries of a sidecar's manifest that a card needs."""

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)]
    source: Annotated[str, Field(pattern=r"^[\w.-]+$")]  # it becomes a folder and a configuration's name
    rows: int
    methods: dict[str, int]
    flags: dict[str, int]
    arguments: dict[str, Any] = {}


def card_manifest(folder: Path) -> Manifest:
    """Read the entries of a sidecar's manifest that a card needs.

    Raises:
        DataError: there is no manifest, or one of another version.
    """
    try:
        return Manifest.model_validate(read_manifest(folder))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DataError(f"{folder / MANIFEST}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def write_card(
    folder: Path,
    manifests: Sequence[Manifest],
    *,
    folder_name: str,
    repository: str | None,
    title: str,
    data_license: str,
) -> None:
    """Write README.md beside `regions/` and `samples/`.

    Args:
        folder: the published data set.
        manifests: the manifests of its sidecars.
        folder_name: name of the folder once it is complete.
        repository: on the Hub, owner/name; None: it stays a folder.
        title: title of the card.
        data_license: licence of the whole, as the Hub writes it.
    """
    rows = sum(manifest.rows for manifest in manifests)
    has_samples = {manifest.source for manifest in manifests if (folder / SAMPLES / manifest.source).is_dir()}
    metadata = DatasetCardData(
        pretty_name=title,
        license=data_license,
        task_categories=["visual-question-answering"],
        size_categories=next((size for limit, size in SIZES if rows < limit), "10M<n<100M"),
        source_datasets=[f"extended|other-{manifest.source}" for manifest in manifests],
        tags=["crop", "visual-grounding", "contextual-regions", "visual-token-compression"],
        configs=[config for manifest in manifests for config in _configs(manifest.source, has_samples)],
    )
    text = CARD.format(
        metadata=metadata.to_yaml(),
        title=title,
        place=repository or f"./{folder_name}",
        where="" if repository else "  # from the folder that holds this one",
        download=f"after `hf download {repository} --repo-type dataset --local-dir DATA`"
        if repository
        else "where DATA is this folder",
        rows=rows,
        first=manifests[0].source,
        methods=", ".join(sorted({method for manifest in manifests for method in manifest.methods})) or "-",
        exif=EXIF_POLICY,
        counts=_method_table(manifests),
        flags=_flag_table(manifests),
        licences=markdown_table(["source", "said to be"], [[m.source, stated_licence(m)] for m in manifests]),
        train="\n".join(_train_entry(manifest.source, has_samples) for manifest in manifests),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _configs(source: str, has_samples: set[str]) -> list[dict[str, Any]]:
    paths = {source: f"regions/{source}/part-*.parquet"}
    if source in has_samples:
        paths[f"{source}-samples"] = f"{SAMPLES}/{source}/part-*.parquet"
    return [{"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in paths.items()]


def stated_licence(manifest: Manifest) -> str:
    """Return the licence of a sidecar's annotations, as the class that read them states it."""
    return SOURCES.get(str(manifest.arguments.get("source", manifest.source)), Source).licence


def _method_table(manifests: Sequence[Manifest]) -> str:
    methods = sorted({method for manifest in manifests for method in manifest.methods})
    rows = [
        [manifest.source, f"{manifest.rows:,}", *(f"{manifest.methods.get(method, 0):,}" for method in methods)]
        for manifest in manifests
    ]
    return markdown_table(["source", "questions", *methods], rows)


def _flag_table(manifests: Sequence[Manifest]) -> str:
    counts: Mapping[str, int] = {
        flag: sum(manifest.flags.get(flag, 0) for manifest in manifests)
        for flag in sorted({flag for manifest in manifests for flag in manifest.flags})
    }
    rows = [[flag, f"{count:,}", FLAGS.get(flag, "")] for flag, count in counts.items()]
    return markdown_table(["flag", "rows", "meaning"], rows)


def _train_entry(source: str, has_samples: set[str]) -> str:
    annotations = f"DATA/{SAMPLES}/{source}/part-*.parquet" if source in has_samples else "THE SOURCE'S OWN FILE"
    return f"  - annotations: {annotations}\n    image_root: IMAGES/{source}\n    regions: DATA/regions/{source}"

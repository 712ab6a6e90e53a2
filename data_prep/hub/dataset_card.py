"""Write the README.md of a published data set of regions, as the Hub reads it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jinja2
from huggingface_hub import DatasetCardData
from pydantic import BaseModel, Field, ValidationError

from data_prep.common.errors import DataError
from data_prep.common.markdown import markdown_table
from data_prep.derivation.derive import FLAGS
from data_prep.schema.sample import EXIF_POLICY, MANIFEST, SCHEMA_VERSION, read_manifest
from data_prep.sources import SOURCES, Source
from data_prep.work.shards import SAMPLES

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
    """Read what a card needs of a sidecar's manifest; DataError if there is none, or one of another version."""
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
    methods = sorted({method for manifest in manifests for method in manifest.methods})
    flags = sum((Counter(manifest.flags) for manifest in manifests), Counter[str]())
    sources = {manifest.source: (folder / SAMPLES / manifest.source).is_dir() for manifest in manifests}
    paths = {}
    for source, has_samples in sources.items():
        paths[source] = f"regions/{source}/part-*.parquet"
        if has_samples:
            paths[f"{source}-samples"] = f"{SAMPLES}/{source}/part-*.parquet"
    metadata = DatasetCardData(
        pretty_name=title,
        license=data_license,
        task_categories=["visual-question-answering"],
        size_categories=next((size for limit, size in SIZES if rows < limit), "10M<n<100M"),
        source_datasets=[f"extended|other-{source}" for source in sources],
        tags=["crop", "visual-grounding", "contextual-regions", "visual-token-compression"],
        configs=[
            {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in paths.items()
        ],
    )
    counts = [[m.source, f"{m.rows:,}", *(f"{m.methods.get(method, 0):,}" for method in methods)] for m in manifests]
    meanings = [[flag, f"{count:,}", FLAGS.get(flag, "")] for flag, count in sorted(flags.items())]
    template = Path(__file__).with_suffix(".md.jinja").read_text(encoding="utf-8")
    text = jinja2.Template(
        template, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    ).render(
        metadata=metadata.to_yaml(),
        title=title,
        repository=repository,
        folder_name=folder_name,
        rows=rows,
        methods=", ".join(methods) or "-",
        exif=EXIF_POLICY,
        counts=markdown_table(["source", "questions", *methods], counts),
        flags=markdown_table(["flag", "rows", "meaning"], meanings),
        licences=markdown_table(["source", "stated licence"], [[m.source, stated_licence(m)] for m in manifests]),
        sources=sources,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def stated_licence(manifest: Manifest) -> str:
    """Return the licence of a sidecar's annotations, as the class that read them states it."""
    return SOURCES.get(str(manifest.arguments.get("source", manifest.source)), Source).licence

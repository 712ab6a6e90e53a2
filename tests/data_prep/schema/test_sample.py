"""The region sidecar: what is written is read back, and what is wrong is named in one line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.common.errors import DataError
from data_prep.schema.sample import RegionAnnotation, file_hashes, read_regions, sample_id, write_regions

coordinates = st.floats(0, 1e4, width=32)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def annotation(**changes) -> RegionAnnotation:
    fields = {"source": "s", "image": "a.png", "turn": 0, "question": "q", "width": 9, "height": 7} | changes
    key = sample_id(fields["source"], fields["image"], fields["turn"], fields["question"])
    defaults = {"boxes": [(1.0, 2.0, 3.0, 4.0)], "region": (1.0, 2.0, 3.0, 4.0), "method": "human"}
    return RegionAnnotation(**({"sample_id": key} | defaults | fields))


@st.composite
def annotation_lists(draw):
    keys = draw(st.lists(st.tuples(texts, st.integers(0, 99), texts), min_size=1, max_size=8, unique=True))
    return [
        annotation(
            image=image,
            turn=turn,
            question=question,
            boxes=draw(st.lists(boxes, max_size=3)),
            region=draw(st.none() | boxes),
            score=draw(st.floats(0, 1, width=32)),
            flags=draw(st.lists(st.sampled_from(["oob_clipped", "degenerate"]), unique=True)),
        )
        for image, turn, question in keys
    ]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=annotation_lists(), rows_per_part=st.integers(1, 4))
def test_round_trip(tmp_path, rows, rows_per_part):
    write_regions(tmp_path / "s", rows, {"arguments": {"a": 1}}, rows_per_part=rows_per_part)
    table = read_regions(tmp_path / "s")
    assert table.source == "s"
    assert list(table) == sorted(row.sample_id for row in rows)
    assert [table[row.sample_id] for row in rows] == rows
    assert table.get("absent") is None
    assert len(list((tmp_path / "s").glob("part-*.parquet"))) == -(-len(rows) // rows_per_part)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]  # nothing temporary stays


def test_manifest_counts_and_hashes(tmp_path):
    source = tmp_path / "in.json"
    source.write_text("abc")
    rows = [annotation(), annotation(turn=1, boxes=[], region=None, method="global", flags=["size_mismatch"])]
    write_regions(tmp_path / "s", rows, {"arguments": {"seed": 3}, "inputs": file_hashes([source])})
    manifest = json.loads((tmp_path / "s/manifest.json").read_text())
    assert manifest["methods"] == {"global": 1, "human": 1}
    assert manifest["flags"] == {"size_mismatch": 1}
    assert manifest["arguments"] == {"seed": 3}
    assert manifest["inputs"] == {"in.json": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    assert manifest["rows"] == 2
    assert manifest["schema_version"] == 2
    assert "EXIF" in manifest["exif"]


def test_sample_id_tells_every_field_apart():
    fields = [("s", "i", 1, "q"), ("s2", "i", 1, "q"), ("s", "i2", 1, "q"), ("s", "i", 2, "q"), ("s", "i", 1, "q2")]
    fields += [("si", "", 1, "q"), ("s", "i1", 1, "q")]
    ids = {sample_id(*each) for each in fields}
    assert len(ids) == len(fields)
    assert all(len(key) == 40 and int(key, 16) >= 0 for key in ids)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([annotation(), annotation()], "occurs 2 times"),
        ([annotation(), annotation(source="t", turn=1)], "one source"),
        ([annotation(method="guess")], "unknown method 'guess'"),
        ([], "no annotations"),
    ],
)
def test_bad_rows_are_not_written(tmp_path, rows, message):
    write_regions(tmp_path / "s", [annotation(question="old")], {})
    with pytest.raises(DataError, match=message):
        write_regions(tmp_path / "s", rows, {})
    assert next(iter(read_regions(tmp_path / "s").values())).question == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_rewriting_leaves_no_old_part(tmp_path):
    write_regions(tmp_path / "s", [annotation(turn=turn) for turn in range(5)], {}, rows_per_part=1)
    write_regions(tmp_path / "s", [annotation()], {})
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["manifest.json", "part-00000.parquet"]


def test_no_list_of_a_fixed_size(tmp_path):
    """pyarrow below 26 neither writes nor reads one that is null."""
    write_regions(tmp_path / "s", [annotation()], {})
    schema = pq.read_schema(tmp_path / "s" / "part-00000.parquet")
    assert schema.field("region").type == pa.list_(pa.float32())
    assert schema.field("boxes").type == pa.list_(pa.list_(pa.float32()))


def damage_duplicate(folder):
    table = pq.read_table(folder / "part-00000.parquet")
    pq.write_table(table.slice(0, 1), folder / "part-00001.parquet")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"rows": 3}))


def damage_column(folder):
    path = folder / "part-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["region"]), path)


def damage_type(folder):
    path = folder / "part-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(5, "width", table.column("width").cast(pa.float64())), path)


def damage_region(folder):
    path = folder / "part-00000.parquet"
    table = pq.read_table(path)
    short = pa.array([[1.0, 2.0, 3.0]] * table.num_rows, pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.column_names.index("region"), "region", short), path)


def damage_version(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))


def damage_source(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["source"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def damage_rows(folder):
    path = folder / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 1), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_duplicate, "sample_id [0-9a-f]{40} occurs 2 times"),
        (damage_column, "part-00000.parquet: no column 'region'"),
        (damage_type, "part-00000.parquet: column 'width' is double, not int32"),
        (damage_region, "part-00000.parquet: column 'region' has a box that is not of four numbers"),
        (damage_version, "manifest.json: schema version 99, this program reads 2: derive it anew"),
        (damage_source, "manifest.json: no key 'source'"),
        (damage_rows, "1 rows, but manifest.json says 2"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: not JSON"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "schema version None"),
        (lambda folder: (folder / "part-00000.parquet").unlink(), "no part-"),
        (lambda folder: (folder / "part-00000.parquet").write_text("text"), "part-00000.parquet: not a parquet file"),
    ],
)
def test_damaged_sidecar_is_named_in_one_line(tmp_path, damage, message):
    write_regions(tmp_path / "s", [annotation(), annotation(turn=1)], {})
    damage(tmp_path / "s")
    with pytest.raises(DataError, match=message) as error:
        read_regions(tmp_path / "s")
    assert "\n" not in str(error.value)
    assert str(tmp_path / "s") in str(error.value)


def test_inputs_are_named_by_as_much_of_their_path_as_tells_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["a/regions/manifest.json", "b/regions/manifest.json", "b/other/manifest.json", "c.json", "x/c.json"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    hashes = file_hashes([*names, "b/other", names[0]])
    assert list(hashes) == [*names[:2], "other/manifest.json", *names[3:], "other"]
    assert len(set(hashes.values())) == 6
    (tmp_path / "a/regions/manifest.json").write_text("changed")
    changed = file_hashes([*names, "b/other"])
    assert [name for name in changed if changed[name] != hashes[name]] == ["a/regions/manifest.json"]
    absolute = file_hashes([tmp_path / "a/regions", tmp_path / "b/regions"])
    assert list(absolute) == ["a/regions", "b/regions"]

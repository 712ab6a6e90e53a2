"""RefCOCO: expressions and the boxes of COCO's annotations, read from a pickle as plain data."""

import os
import pickle
from dataclasses import replace

import pytest

from data_prep.common.errors import ConfigError, DataError
from data_prep.sources.refcoco import RefCoco
from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.refcoco import REFS, make, write

NINE = "train2014/COCO_train2014_000000000009.jpg"
TWENTY_FIVE = "train2014/COCO_train2014_000000000025.jpg"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("refcoco"))


@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        (NINE, "left man", [20.5, 10.25, 60.5, 70.75], []),  # 20.5 + 40, 10.25 + 60.5
        (NINE, "the man on the left", [20.5, 10.25, 60.5, 70.75], []),
        (NINE, "café table", [100, 50, 200, 90], ["oob_clipped"]),  # min(100 + 120, 200), 50 + 40
        (TWENTY_FIVE, "tall one", [10, 0, 60, 200], []),
    ],
)
def test_regions(result, image, question, region, flags) -> None:
    row = result[0][image, question]
    assert (row["region"], row["method"], row["flags"]) == (region, "human", flags)


def test_rejected_and_left_out(result) -> None:
    rows, rejected = result
    assert len(rows) == 4  # once what is said twice, and nothing of testA
    assert [(line["record"], line["reason"]) for line in rejected] == [
        (4, "missing_instance"),
        (5, "missing_instance"),
        (6, "schema"),  # three numbers
        (7, "schema"),
        (8, "duplicate"),  # the words of another object
    ]


def test_the_splits_are_choices(tmp_path) -> None:
    rows, _ = rows_of(lambda folder: replace(make(folder), split="testA"), tmp_path)
    assert list(rows) == [(NINE, "man of a test")]
    with pytest.raises(ConfigError, match=r"no such file: .*refs\(google\)\.p"):
        RefCoco(folder=str(tmp_path / "refcoco"), split_by="google")
    assert write(tmp_path, REFS, "google").split_by == "google"


def test_expressions_are_no_samples(tmp_path) -> None:
    assert not (annotated(make(tmp_path), tmp_path) / "samples").exists()


class Shell:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused(tmp_path, protocol) -> None:
    reader, proof = make(tmp_path), tmp_path / "executed"
    refs = [{**REFS[0], "sentences": [{"raw": "a", "sent": Shell(f"touch {proof}")}]}]
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol))
    with pytest.raises(DataError, match="only plain data is read"):
        annotated(reader, tmp_path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(refs, protocol))  # the control: it does what it says, where it is let
    assert proof.exists()


def test_a_pickle_of_something_else_is_refused(tmp_path) -> None:
    write(tmp_path, {"refs": REFS})
    with pytest.raises(DataError, match="expected a list of references, got dict"):
        write(tmp_path, {"refs": REFS}).records()

"""DocVQA: quads, pages of another size than their images, pages whose text is missing or damaged."""

import pytest

from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.docvqa import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("docvqa"))


@pytest.mark.parametrize(
    ("page", "question", "region", "flags"),
    [
        # corners 30 11, 55 9, 56 19, 31 21
        ("xnbl0037_1", "What is the date?", [30, 9, 56, 21], []),
        # RJR 10..20 and Tobacco 22..50 x 100..108, Company 10..40 x 110..118 on the next line
        ("xnbl0037_1", "Which company is it?", [10, 100, 50, 118], []),
        # the first answer stands nowhere, the second at 40..90 x 60..70
        ("xnbl0037_1", "How secret is it?", [40, 60, 90, 70], []),
        # 80..120 x 20..40 of 200x120, in a file of 100x60
        ("ffbf0023_4", "What is the total?", [40, 10, 60, 20], ["size_mismatch"]),
    ],
)
def test_regions(result, page, question, region, flags):
    row = result[0][f"documents/{page}.png", question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (region, "ocr_match", 1, flags)


@pytest.mark.parametrize(
    ("page", "question", "score", "flags"),
    [
        ("xnbl0037_1", "Who signed?", 0, ["no_evidence"]),
        ("gxym0227_2", "What is the total?", 0, ["no_evidence", "size_mismatch"]),  # 200x120 is no 60x100 resized
        ("kqmn0000_1", "What is it?", 0, ["no_evidence", "no_ocr"]),
        ("xnbl0037_1", "What is asked in the test?", 0, ["no_evidence"]),
    ],
)
def test_whole_image(result, page, question, score, flags):
    row = result[0][f"documents/{page}.png", question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (None, "global", score, flags)


def test_a_damaged_page_is_named(result):
    rows, rejected = result
    assert [(line["record"], line["reason"]) for line in rejected] == [(7, "bad_ocr")]
    assert "snyc0227_1.json: Invalid JSON" in rejected[0]["message"]
    assert len(rows) == 8

"""Format Markdown tables that are readable as plain text too."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """Format a table whose columns line up.

    Args:
        header: text of every column's head.
        rows: the cells, as many in each row as there are columns.
        align: "l" or "r" per column, such as "lrr"; "": all columns are aligned on the left.
    """
    sides = align or "l" * len(header)
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    columns = list(zip(widths, sides, strict=True))
    rule = "|".join("-" * (width + 1) + (":" if side == "r" else "-") for width, side in columns)
    texts = [
        " | ".join(
            text.rjust(width) if side == "r" else text.ljust(width)
            for text, (width, side) in zip(line, columns, strict=True)
        )
        for line in lines
    ]
    first, *rest = [f"| {text} |" for text in texts]
    return "\n".join([first, f"|{rule}|", *rest])

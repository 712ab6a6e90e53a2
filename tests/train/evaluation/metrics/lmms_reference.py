"""Definitions of an installed lmms-eval, taken out of their files: importing it needs all that it depends on."""

import ast
import importlib.util
import logging
import re
import statistics
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VERSION = "0.7.3"  # that the recorded cases are from
_IMPORTS = {"re": re, "statistics": statistics, "defaultdict": defaultdict, "eval_logger": logging.getLogger(__name__)}


def package() -> Path | None:
    """The folder of lmms-eval, or None where it is not installed."""
    found = importlib.util.find_spec("lmms_eval")
    return None if found is None or found.origin is None else Path(found.origin).parent


def definitions(folder: Path, file: str, *names: str, **globals_: Any) -> SimpleNamespace:
    """A file's functions, classes and constants of these names, undecorated; they see `_IMPORTS` and `globals_`."""
    scope: dict[str, Any] = {**_IMPORTS, **globals_}
    for node in ast.parse((folder / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        if _name(node) in names:
            exec(compile(ast.Module([node], []), file, "exec"), scope)
    return SimpleNamespace(**{name: scope[name] for name in names})


def _name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return node.name if isinstance(node, ast.FunctionDef | ast.ClassDef) else None


def answer_processor(folder: Path) -> Any:
    """Its EvalAI answer processor."""
    return definitions(folder, "tasks/_task_utils/vqa_eval_metric.py", "EvalAIAnswerProcessor").EvalAIAnswerProcessor


def textvqa_accuracy(folder: Path, answer: str, targets: list[str]) -> float:
    """The score of its TextVQA task."""
    name, processor = "textvqa_process_results", answer_processor(folder)
    task = definitions(folder, "tasks/textvqa/utils.py", name, EvalAIAnswerProcessor=processor)
    return task.textvqa_process_results({"answers": list(targets), "question_id": 0}, [answer])["exact_match"]


def vqav2_accuracy(folder: Path, answer: str, targets: list[str]) -> float:
    """The score of its VQAv2 task."""
    name, processor = "vqav2_process_results", answer_processor(folder)
    task = definitions(folder, "tasks/vqav2/utils.py", name, EvalAIAnswerProcessor=processor)
    answers = [{"answer": target, "answer_id": index} for index, target in enumerate(targets)]
    return task.vqav2_process_results({"answers": answers, "question_id": 0}, [answer])["exact_match"]

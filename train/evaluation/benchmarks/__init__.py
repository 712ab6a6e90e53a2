"""Read public benchmarks: one reader per file, with its metric and instruction."""

from . import docvqa, gqa, mmbench, mme, pope, scienceqa, seed_bench, textvqa, visual_cot, vizwiz, vqav2
from .question import LETTER, OR_UNANSWERABLE, Benchmark

BENCHMARKS = {
    "docvqa": Benchmark(docvqa.read, "anls"),
    "gqa": Benchmark(gqa.read, "exact_match"),
    "mmbench": Benchmark(mmbench.read, "choice", LETTER),
    "mme": Benchmark(mme.read, "mme"),
    "pope": Benchmark(pope.read, "pope"),
    "scienceqa": Benchmark(scienceqa.read, "choice", LETTER),
    "seed_bench": Benchmark(seed_bench.read, "choice", LETTER),
    "textvqa": Benchmark(textvqa.read, "vqa_accuracy", read_with_ocr=textvqa.read_with_ocr),
    "visual_cot": Benchmark(visual_cot.read, "visual_cot", instruction=None),
    "vizwiz": Benchmark(vizwiz.read, "vqa_accuracy", OR_UNANSWERABLE),
    "vqav2": Benchmark(vqav2.read, "vqav2_accuracy"),
}

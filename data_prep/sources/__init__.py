"""Read public data sets: one reader per file, chosen by name."""

from .aokvqa import Aokvqa
from .base import Source
from .chartqa import ChartQA
from .docvqa import DocVqa
from .flickr30k import Flickr30k
from .gqa import Gqa
from .hf_dataset import HfDataset
from .infographicvqa import InfographicVqa
from .llava_mix import LlavaMix
from .llava_next import LlavaNext
from .ms_swift import MsSwift
from .ocr_vqa import OcrVqa
from .ref_chartqa import RefChartQA
from .refcoco import RefCoco
from .scienceqa import ScienceQa
from .st_vqa import StVqa
from .textvqa import TextVqa
from .toloka import Toloka
from .visual7w import Visual7W
from .visual_cot import VisualCot
from .visual_cot_json import VisualCotJson
from .visual_genome import VisualGenome, VisualGenomeRegions
from .vizwiz import VizWiz
from .vqav2 import VqaV2

SOURCES: dict[str, type[Source]] = {
    "aokvqa": Aokvqa,
    "chartqa": ChartQA,
    "docvqa": DocVqa,
    "flickr30k": Flickr30k,
    "gqa": Gqa,
    "hf_dataset": HfDataset,
    "infographicvqa": InfographicVqa,
    "llava_mix": LlavaMix,
    "llava_next": LlavaNext,
    "ms_swift": MsSwift,
    "ocr_vqa": OcrVqa,
    "ref_chartqa": RefChartQA,
    "refcoco": RefCoco,
    "scienceqa": ScienceQa,
    "st_vqa": StVqa,
    "textvqa": TextVqa,
    "toloka": Toloka,
    "visual7w": Visual7W,
    "visual_cot": VisualCot,
    "visual_cot_json": VisualCotJson,
    "visual_genome": VisualGenome,
    "visual_genome_regions": VisualGenomeRegions,
    "vizwiz": VizWiz,
    "vqav2": VqaV2,
}

"""Choose faster kernels that compute the same numbers, each by its key; none is required.

attn_implementation: flash_attention_2   at loading, by transformers
use_liger_kernel: true                   Liger's norms, rotary positions and gated FFN in the language model
compile_modules: true                    torch.compile of the compressor and the language model
pack_length: N                           with sdpa, which has no kernel of its own for packed rows
"""

from torch import nn
from transformers.integrations.liger import apply_liger_kernel

from train.arguments.training import PlcTrainingArguments

from .packed_attention import use_attention_by_sample


def apply_kernels(model: nn.Module, args: PlcTrainingArguments) -> None:
    """Change the model's modules in place. Parameter names, and with them checkpoints, do not change."""
    parts = {name: module for name, module in model.named_modules() if name.endswith(("language_model", "compressor"))}
    language_model = next(module for name, module in parts.items() if name.endswith("language_model"))
    if args.use_liger_kernel:
        # the Trainer would pass Liger the whole model's type, which it does not know; Liger's loss would replace the
        # forward by one that takes no regions
        apply_liger_kernel(language_model, {"fused_linear_cross_entropy": False, "cross_entropy": False})
    packed = args.pack_length is not None and not args.compile_modules  # which would compile every row's lengths anew
    if packed and language_model.config._attn_implementation == "sdpa":
        use_attention_by_sample(language_model)
    if args.compile_modules:
        for module in parts.values():
            module.compile(dynamic=True)

"""Qwen3-VL: as Qwen2.5-VL, with its own chat format; some layers see the tower's early features."""

from flmm.adapters.families.qwen2_5_vl import Qwen25VL
from flmm.text.prompts import PromptStyle


class Qwen3VL(Qwen25VL):
    """transformers' "qwen3_vl" and "qwen3_vl_moe" (Qwen/Qwen3-VL-4B-Instruct and others)."""

    style = PromptStyle(
        "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
        image_token="<|vision_start|><|image_pad|><|vision_end|>",
        separator="",
    )

"""Qwen3-VL and Qwen3.5: as Qwen2.5-VL, with their own chat format."""

from flmm.adapters.families.qwen2_5_vl import Qwen25VL
from flmm.text.boxes import QWEN
from flmm.text.prompts import STYLES, PromptStyle


class Qwen3VL(Qwen25VL):
    """transformers' "qwen3_vl" and "qwen3_vl_moe" (Qwen/Qwen3-VL-4B-Instruct and others), and
    "qwen3_5" and "qwen3_5_moe".

    In Qwen3.5 one layer of four has a softmax attention: only these give maps and states.
    """

    style = PromptStyle(
        STYLES["chatml"].template,
        image_token="<|vision_start|><|image_pad|><|vision_end|>",
        separator="",
    )
    boxes = QWEN

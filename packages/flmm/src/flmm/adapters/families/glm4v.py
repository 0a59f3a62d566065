"""GLM-4.1V and 4.5V: the image at (nearly) its own size, one token for 2 x 2 patches."""

from flmm.adapters.families.qwen2_5_vl import Qwen25VL
from flmm.text.boxes import GLM
from flmm.text.prompts import PromptStyle


class Glm4v(Qwen25VL):
    """transformers' "glm4v", "glm4v_moe" and "glm46v" (zai-org/GLM-4.1V-9B-Thinking and others)."""

    style = PromptStyle(
        "[gMASK]<sop><|user|>\n{input}<|assistant|>\n",
        image_token="<|begin_of_image|><|image|><|end_of_image|>",
        separator="",
    )
    boxes = GLM

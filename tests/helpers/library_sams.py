"""SAMs as transformers runs them: what tests compare a refiner with.

Tests import them as `from library_sams import processor_of` (pytest puts this folder on the path).
"""

import torch
import transformers as hf
from PIL import Image


def read_what_the_transformer_wrote(model):
    """Mend the library's SAM-HQ, which enlarges the image as it was before its two-way transformer,
    with rows and columns exchanged."""
    decoder = model.mask_decoder
    written = []
    decoder.transformer.register_forward_hook(lambda module, given, found: written.append(found[1]))

    def enlarge_it(module, given):
        positions = written.pop().flatten(0, 1).transpose(1, 2)  # (N, D, P)
        return (positions.unflatten(2, given[0].shape[2:]),)

    decoder.upscale_conv1.register_forward_pre_hook(enlarge_it)


def picture(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[0] // 10, size[1] // 10, 3), generator=generator)
    return Image.fromarray(pixels.to(torch.uint8).numpy()).resize(size[::-1])


def processor_of(name, edge):
    if name in ("sam", "sam_hq"):
        images = hf.SamImageProcessor(
            size={"longest_edge": edge}, pad_size={"height": edge, "width": edge}
        )
        return hf.SamHQProcessor(images) if name == "sam_hq" else hf.SamProcessor(images)
    square = {"height": edge, "width": edge}
    if name == "sam3_tracker":
        return hf.Sam3TrackerProcessor(hf.Sam3ImageProcessor(size=square))
    return hf.Sam2Processor(hf.Sam2ImageProcessor(size=square))


def library_embeddings(refiner, image):
    """What a model of transformers takes in place of an image's pixels."""
    (made,) = refiner.embed([image])
    inputs = {"image_embeddings": made.features[None]}
    if refiner.sam_kind.finer:
        inputs["image_embeddings"] = [
            *(detail[None] for detail in made.details),
            made.features[None],
        ]
    if refiner.sam_kind.hq:
        inputs["intermediate_embeddings"] = [made.details[0].permute(1, 2, 0)[None]]
    return inputs

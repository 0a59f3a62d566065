"""One call from the name of a task to a pipeline."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from clim_models.create import create_model
from clim_models.foreign import name_of_export
from clim_models.names import has_scheme
from clim_models.pipelines.detection import DetectionPipeline
from clim_models.pipelines.options import PipelineOptions
from clim_models.pipelines.pictures import is_url, read_picture
from clim_models.pipelines.regions import DensePipeline, RegionPipeline
from clim_models.region_model import RegionModel
from clim_models.shipped import SHIPPED_TAGS, TINY
from clim_models.text.vocabulary import Vocabulary, embed_vocabulary

Labels = Sequence[str] | None
Words = str | Path | Mapping[str, Any] | Vocabulary | None
CLIP_TASKS: dict[str, Callable[..., RegionPipeline | DensePipeline]] = {
    "region-classification": RegionPipeline,
    "dense": DensePipeline,
}
TASKS = (*CLIP_TASKS, "detection")
# Detectors return everything above their own small limit.
DETECTION_SCORE = 0.3


@overload
def pipeline(
    task: Literal["region-classification"],
    *,
    model: Any = None,
    pretrained: str | Path | None = None,
    labels: Labels = None,
    vocabulary: Words = None,
    device: str | torch.device | None = None,
    options: PipelineOptions | None = None,
) -> RegionPipeline: ...


@overload
def pipeline(
    task: Literal["dense"],
    *,
    model: Any = None,
    pretrained: str | Path | None = None,
    labels: Labels = None,
    vocabulary: Words = None,
    device: str | torch.device | None = None,
    options: PipelineOptions | None = None,
) -> DensePipeline: ...


@overload
def pipeline(
    task: Literal["detection"],
    *,
    model: Any = None,
    pretrained: str | Path | None = None,
    labels: Labels = None,
    vocabulary: Words = None,
    device: str | torch.device | None = None,
    options: PipelineOptions | None = None,
) -> DetectionPipeline: ...


def pipeline(
    task: str,
    *,
    model: str | Path | nn.Module | None = None,
    pretrained: str | Path | None = None,
    labels: Labels = None,
    vocabulary: Words = None,
    device: str | torch.device | None = None,
    options: PipelineOptions | None = None,
) -> RegionPipeline | DensePipeline | DetectionPipeline:
    """Make a pipeline, which takes pictures and returns results.

    ```python
    find = clim_models.pipeline("dense", model="clim-tiny", labels=["a guitar", "a frog"])
    result = find("photo.jpg")  # or a URL, a Pillow image, an array, a list of them
    ```

    Args:
        task: "region-classification" names boxes, "dense" says where each label is, "detection"
            finds objects.
        model: for the first two an open_clip name, or a `RegionModel`; None takes the name that the
            folder of `pretrained` has. For "detection" the run folder of a detector's training, an
            exported one or its model.safetensors, or a detector.
        pretrained: weights as `create_model` takes them. "none" asks for random ones.
        labels: names to look for. A detector without labels looks for the classes it was trained
            on.
        vocabulary: in place of labels: a vocabulary file or its contents, see `Vocabulary.of`.
            Example pictures are named from the folder of the file.
        device: None is the GPU, if there is one; a model that is passed stays where it is.
        options: see `PipelineOptions`; None takes its defaults, for detectors with min_score 0.3.

    Raises:
        FileNotFoundError, ValueError: an unknown task, or a model, weights or labels that are
            missing or do not fit.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is unknown: choose from {', '.join(TASKS)}")
    if labels is not None and vocabulary is not None:
        raise ValueError("labels and vocabulary contradict: pass one of them")
    words, read_example = load_vocabulary(labels, vocabulary)

    if task == "detection":
        if pretrained is not None:
            raise ValueError("pretrained is for CLIPs: pass the folder of a detector as model")
        chosen = options or PipelineOptions(min_score=DETECTION_SCORE)
        detector = _detector(model, device, chosen)
        if words is not None:
            detector = detector.with_vocabulary(
                words, templates=chosen.templates, read_example=read_example
            )
        return DetectionPipeline(detector, chosen)

    if words is None:
        raise ValueError('pass labels, such as labels=["a cat", "a sofa"], or a vocabulary')
    chosen = options or PipelineOptions()
    clip = load_clip(model, pretrained, device, chosen)
    embedded = embed_vocabulary(clip, words, templates=chosen.templates, read_example=read_example)
    return CLIP_TASKS[task](clip, embedded, chosen)


def load_vocabulary(labels: Labels, vocabulary: Words) -> tuple[Vocabulary | None, Any]:
    """Return the vocabulary, and the reader of its example pictures."""
    if isinstance(vocabulary, str | Path):
        folder = Path(vocabulary).parent

        def read_beside(name: str) -> Tensor:
            return read_picture(name if is_url(name) else folder / name)

        return Vocabulary.read(vocabulary), read_beside
    words = labels if vocabulary is None else vocabulary
    return (None if words is None else Vocabulary.of(words)), read_picture


def load_clip(
    model: Any,
    pretrained: str | Path | None,
    device: str | torch.device | None,
    options: PipelineOptions,
) -> RegionModel:
    """Return the CLIP of the arguments, on its device.

    Raises:
        ValueError: no name, or a name without weights.
    """
    if isinstance(model, RegionModel):
        if pretrained is not None:
            raise ValueError("pretrained is for a model by name: this one has its weights already")
        return model if device is None else model.to(device)
    if model is not None and not isinstance(model, str | Path):
        raise ValueError(
            f"model is a {type(model).__name__}: pass an open_clip name or a RegionModel"
        )

    name = str(model) if model is not None else _name_of(pretrained, options)
    if pretrained is None and name != TINY and not has_scheme(name):
        raise ValueError(
            f"which weights of {name}? pass pretrained=TAG, a file or a run folder "
            '(open_clip.list_pretrained() lists tags; "none" asks for random weights)'
        )
    return create_model(
        name, pretrained=pretrained, precision=options.precision, device=_device(device)
    )


def _name_of(pretrained: str | Path | None, options: PipelineOptions) -> str:
    """Return the model name in the folder of weights, or the name of shipped weights.

    Raises:
        ValueError: no file says it.
    """
    if pretrained in SHIPPED_TAGS and not Path(str(pretrained)).exists():
        return TINY
    name = name_of_export(pretrained, trusted=options.trusted) if pretrained else None
    if not name:
        raise ValueError(
            "which model? pass model=NAME of open_clip, or pretrained=RUN with the folder of a "
            "finished run"
        )
    return name


def _detector(model: Any, device: str | torch.device | None, options: PipelineOptions) -> Any:
    """Return the detector of the arguments, on its device.

    Raises:
        FileNotFoundError, ValueError: nothing that holds one.
    """
    if isinstance(model, nn.Module):
        if not hasattr(model, "detect"):
            raise ValueError(
                f"model is a {type(model).__name__}: pass a detector of clim_models.detection, or "
                "its folder"
            )
        return model if device is None else model.to(device)
    if model is None:
        raise ValueError("which detector? pass model=RUN, the run folder of a detector's training")
    from clim_models.detection.folders import open_detector

    # A file is read with what lies next to it.
    path = Path(model)
    folder = path.parent if path.is_file() else path
    return open_detector(folder, device=_device(device), trusted=options.trusted)


def _device(device: str | torch.device | None) -> str | torch.device:
    if device is not None:
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"

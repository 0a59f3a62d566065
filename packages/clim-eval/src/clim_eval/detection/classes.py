"""The detector of an evaluation, with the categories of the annotation file as its classes."""

from typing import TYPE_CHECKING

from clim_models.detection import ClassSet, transfer_fvit

from clim_eval.class_vectors import ClassSource, VocabularyFile
from clim_eval.detection.annotations import DetectionTruth
from clim_eval.detection.options import TRANSFERS
from clim_eval.embeddings import TEMPLATES

if TYPE_CHECKING:
    from clim_models.detection import TwoStageDetector


def with_categories(
    detector: "TwoStageDetector",
    truth: DetectionTruth,
    source: ClassSource,
    transfer: str | None = None,
) -> "TwoStageDetector":
    """Return the detector with the classes that its boxes are compared with.

    Without a vocabulary or embeddings, a detector that was trained with the same classes as the
    file, in any order, uses its own vectors; any other one gets the names of the file. Classes that
    had boxes in its training stay base classes. With a transfer, all classes count alike.

    Raises:
        ValueError: a category has no vector, or a transfer of a detector that is no F-ViT.
    """
    names = truth.names
    if transfer is not None:
        return transfer_fvit(
            detector,
            names,
            TRANSFERS[transfer],
            templates=TEMPLATES[source.templates],
            cache=source.cache,
        )
    if source.vocabulary is not None:
        file = VocabularyFile.read(source.vocabulary)
        file.check_names(names)
        return detector.with_vocabulary(
            file.vocabulary,
            templates=TEMPLATES[source.templates],
            read_example=file.read_example,
            cache=source.cache,
        )

    trained = {detector.names[label] for label in detector.classes.base}
    if source.embeddings is not None:
        if detector.text is None:
            raise ValueError(
                "the detector has no text tower with which embeddings could be compared: export "
                "it again"
            )
        rows = source.rows(detector.text, names)
        base = [label for label, name in enumerate(names) if name in trained]
        return detector.with_classes(ClassSet(names, rows, base))

    if set(detector.names) == set(names):
        return detector
    return detector.with_vocabulary(
        names, templates=TEMPLATES[source.templates], cache=source.cache
    )

"""The figures of each kind of `flmm eval`, with a note for the report."""

from argparse import Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clim_eval import MaskScores

PROTOCOL_NOTES = {
    "original": "Protocol `original` (F-LMM's): the first sentence of each object, all of an image "
    "in one text, so that later expressions see the earlier ones. Not comparable with the standard "
    "protocol.",
    "standard": "Protocol `standard`: every sentence of every object by itself.",
}
NARRATIVE_NOTE = (
    "`original`: the sums of F-LMM's evaluation; the others are exact. Masks have the image's own "
    "size."
)
GENERALIZED_NOTE = (
    "Every sentence by itself. A phrase is called present if its score is at least {} "
    "(`--min-score`) and its mask is not empty. ECE: a score promises an IoU of 0.5."
)


REASONING_NOTE = (
    "gIoU: mean IoU of the questions; cIoU: sum of intersections by sum of unions. `short` are "
    "phrases, `long` sentences. Grounded: the {}; queries of an image: {}."
)
ENTITY_NOTE = (
    "Phrases with a box. `merged`: the true box is the one around all boxes of a phrase; `any`: "
    "the best of them. R@1: share of phrases with a box IoU of 0.5; `pointing`: share whose "
    "highest logit lies in a true box. Published figures use one of the two protocols: compare "
    "like with like."
)


def figures_of(options: Namespace, scores: "MaskScores", data: Any) -> tuple[dict[str, float], str]:
    """Return the metrics of a kind of data set, and a note about them."""
    from clim_eval import (
        entity_scores,
        generalized_scores,
        narrative_scores,
        reasoning_scores,
        referring_scores,
    )

    if options.kind == "reasonseg":
        note = REASONING_NOTE.format(options.grounded, options.queries)
        return reasoning_scores(scores, data.long_questions()), note
    if options.kind == "flickr30k":
        return entity_scores(scores), ENTITY_NOTE

    if options.kind == "png":
        metrics = narrative_scores(scores) | narrative_scores(scores, protocol="original")
        return metrics, NARRATIVE_NOTE
    if options.kind == "grefcoco":
        return generalized_scores(scores), GENERALIZED_NOTE.format(options.min_score)
    return referring_scores(scores, protocol=options.protocol), PROTOCOL_NOTES[options.protocol]

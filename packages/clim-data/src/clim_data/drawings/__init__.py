"""Demo data: drawings with names, and scenes composed of them.

The table in the README of the package lists the public names.
"""

from typing import TYPE_CHECKING

from clim_data.lazy import lazy_names

if TYPE_CHECKING:
    from clim_data.drawings.emoji import (
        EmojiSet as EmojiSet,
        EmojiSplit as EmojiSplit,
        caption_of as caption_of,
        load_emoji as load_emoji,
        write_emoji_shards as write_emoji_shards,
    )
    from clim_data.drawings.narrative_scenes import (
        NarrativeOptions as NarrativeOptions,
        NarrativeScenes as NarrativeScenes,
        compose_narrative_scenes as compose_narrative_scenes,
        narrative as narrative,
        narrative_words as narrative_words,
        noun_phrase as noun_phrase,
        plural as plural,
        scene_vendors as scene_vendors,
    )
    from clim_data.drawings.scenes import (
        BACKGROUNDS as BACKGROUNDS,
        Scene as Scene,
        SceneFolder as SceneFolder,
        SceneOptions as SceneOptions,
        background as background,
        compose as compose,
        compose_scenes as compose_scenes,
        fit_cutout as fit_cutout,
    )
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "BACKGROUNDS": "clim_data.drawings.scenes",
            "EmojiSet": "clim_data.drawings.emoji",
            "EmojiSplit": "clim_data.drawings.emoji",
            "NarrativeOptions": "clim_data.drawings.narrative_scenes",
            "NarrativeScenes": "clim_data.drawings.narrative_scenes",
            "Scene": "clim_data.drawings.scenes",
            "SceneFolder": "clim_data.drawings.scenes",
            "SceneOptions": "clim_data.drawings.scenes",
            "background": "clim_data.drawings.scenes",
            "caption_of": "clim_data.drawings.emoji",
            "compose": "clim_data.drawings.scenes",
            "compose_narrative_scenes": "clim_data.drawings.narrative_scenes",
            "compose_scenes": "clim_data.drawings.scenes",
            "fit_cutout": "clim_data.drawings.scenes",
            "load_emoji": "clim_data.drawings.emoji",
            "narrative": "clim_data.drawings.narrative_scenes",
            "narrative_words": "clim_data.drawings.narrative_scenes",
            "noun_phrase": "clim_data.drawings.narrative_scenes",
            "plural": "clim_data.drawings.narrative_scenes",
            "scene_vendors": "clim_data.drawings.narrative_scenes",
            "write_emoji_shards": "clim_data.drawings.emoji",
        },
    )

"""Options of the region readers: keywords spell out the objects, and mistakes are named."""

import pytest
from clim_data.readers import RegionRules, RegionView
from clim_data.readers.region_options import choose_regions


def test_keywords_spell_out_view_and_rules():
    keywords = {"image_px": 64, "stride": 16, "crowd": "skip", "stuff_box": "inclusive"}
    view, rules = choose_regions(None, None, keywords)
    assert view == RegionView(64, 16)
    assert rules == RegionRules(crowd="skip", stuff_box="inclusive")
    assert choose_regions(view, rules, {}) == (view, rules)


def test_an_object_and_keywords_can_be_mixed_but_not_of_one_kind():
    view = RegionView(64, 16)
    assert choose_regions(view, None, {"max_regions": 3})[1].max_regions == 3
    with pytest.raises(ValueError, match="image_px given next to view: set it in"):
        choose_regions(view, None, {"image_px": 32})
    with pytest.raises(ValueError, match="crowd given next to rules: set it in"):
        choose_regions(view, RegionRules(), {"crowd": "skip"})
    with pytest.raises(TypeError, match="colour"):
        choose_regions(view, None, {"colour": 1})


@pytest.mark.parametrize(
    "rule",
    [{"area_px": (9, 8)}, {"crowd": "some"}, {"max_regions": 0}, {"stuff_box": "loose"}],
)
def test_a_rule_out_of_range_is_named(rule):
    with pytest.raises(ValueError, match=next(iter(rule))):
        RegionRules(**rule)

import clim_eval


def test_every_name_of_the_api_exists():
    for name in clim_eval.__all__:
        assert getattr(clim_eval, name) is not None

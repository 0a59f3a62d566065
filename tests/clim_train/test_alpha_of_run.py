"""What clim-eval's sweep reads is what the trainer writes."""

import torch
from clim_eval import alpha_sweep, weights_of_run
from clim_models import create_model
from tiny_training import tiny_config, tiny_model, tiny_trainer
from tolerance import float32_sum


def test_a_sweep_over_a_run_has_its_start_its_export_and_its_trained_weights(tmp_path):
    start = tiny_model()
    name, first = start.name, {key: value.clone() for key, value in start.state_dict().items()}
    trainer = tiny_trainer(tiny_config(tmp_path / "run", steps=2), model=start)
    trainer.fit()
    model = create_model(name, pretrained=tmp_path / "run")
    exported = {key: value.clone() for key, value in model.state_dict().items()}
    ends = weights_of_run(tmp_path / "run")
    assert set(ends.student) == {key for key in first if not torch.equal(first[key], exported[key])}
    assert not ends.change_texts
    seen = {}

    def look():
        seen[len(seen)] = {key: value.clone() for key, value in model.state_dict().items()}
        return {"scale": model.logit_scale.item()}

    results = alpha_sweep(model, ends, [0, 0.7, 1], {"model": look})
    assert list(results) == [0, 0.7, 1]
    for found, expected in (
        (seen[0], first),
        (seen[1], exported),
        (seen[2], trainer.task.model.state_dict()),
    ):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(
                found[key], value, rtol=float32_sum(2), atol=float32_sum(2, scale=0.1)
            )
